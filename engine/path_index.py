"""The paths of tokens whose keys and values are known, by number; where they lie is the caches' affair.

What a block holds is told by the path of tokens from the start of the text, not only by the block's own.
Every path gets a number that is never used again, so two paths cannot be taken for each other.
"""

from collections.abc import Sequence

#: The path before the first token.
ROOT_PATH = 0

#: What a block may hold: the path to it, and its own tokens.
Content = tuple[int, tuple[int, ...]]


class PathIndex:
    """Paths that lead from one block's content to the next, each block of `block_tokens` tokens."""

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._path_of_content: dict[Content, int] = {}
        self._content_of_path: dict[int, Content] = {}
        self._next_path = ROOT_PATH + 1

    def match(self, tokens: Sequence[int]) -> list[int]:
        """Return the path behind each block of the longest known prefix; at least one token is left."""
        size, path_of_content = self._block_tokens, self._path_of_content
        paths: list[int] = []
        path = ROOT_PATH
        for start in range(0, len(tokens) - size, size):
            known = path_of_content.get((path, tuple(tokens[start : start + size])))
            if known is None:
                break
            path = known
            paths.append(path)
        return paths

    def content(self, path: int, index: int, tokens: Sequence[int]) -> Content | None:
        """Return what the `index`-th block of a text will hold, `path` leading to it; None while there are
        not enough tokens for it.
        """
        start = index * self._block_tokens
        end = start + self._block_tokens
        return (path, tuple(tokens[start:end])) if end <= len(tokens) else None

    def publish(self, content: Content | None) -> int:
        """Make the content known if it is not yet; return the path behind it."""
        assert content is not None, "a block is made known before it is full"
        new = self._next_path
        path = self._path_of_content.setdefault(content, new)
        if path == new:
            self._content_of_path[path] = content
            self._next_path += 1
        return path

    def forget(self, path: int) -> None:
        """Let the path be unknown, so that nothing behind it is found either."""
        del self._path_of_content[self._content_of_path.pop(path)]
