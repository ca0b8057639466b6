"""Which lane of a device holds whose keys and values, where each sequence needs memory of its own.

A lane has rows for one sequence, in the order of its text: what a compiled net wants, which reads a
whole cache in one piece. Lanes are cut into blocks as other memory is, so that the prefix of a text is
found as it is there (`engine.path_index`); what is found in somebody else's lane is copied. A lane that
nobody holds is kept for its content, a few of them, least recently used given up first.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Protocol

from engine.cache import BLOCK_TOKENS
from engine.path_index import ROOT_PATH, Content, PathIndex


class LaneMemory(Protocol):
    """The lanes of a device; called on the engine's thread, as the executor is."""

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Make the first tokens of one lane the content of another, or of itself, and drop what it held."""
        ...

    def free(self, lane: int) -> None:
        """Give a lane's memory back to the device."""
        ...


class LaneCache:
    """The lanes of one executor, `lanes` of `lane_tokens` tokens each.

    At most `most_kept` lanes are kept when their sequences have left. A prefix is of no use if it leaves
    more than `most_rest` tokens to compute: where nets take no history, these go one by one.
    """

    def __init__(
        self,
        memory: LaneMemory,
        lanes: int,
        lane_tokens: int,
        *,
        most_kept: int,
        most_rest: int | None = None,
        block_tokens: int = BLOCK_TOKENS,
    ) -> None:
        self.block_tokens = block_tokens
        self.lane_blocks = -(-lane_tokens // block_tokens)
        self._memory = memory
        self._most_kept = most_kept
        self._most_rest = most_rest
        self._free = list(range(lanes - 1, -1, -1))
        self._holders = [0] * lanes
        self._kept: OrderedDict[int, None] = OrderedDict()
        self._index = PathIndex(block_tokens)
        self._paths_of_lane: list[list[int]] = [[] for _ in range(lanes)]
        self._lanes_of_path: defaultdict[int, set[int]] = defaultdict(set)

    @property
    def available(self) -> int:
        """How many blocks lie in lanes that nobody holds."""
        return (len(self._free) + len(self._kept)) * self.lane_blocks

    def match(self, tokens: Sequence[int]) -> list[int]:
        """Hold the lane of the longest known prefix and return its blocks; at least one token is left."""
        paths = self._index.match(tokens)
        rest = len(tokens) - len(paths) * self.block_tokens
        if not paths or (self._most_rest is not None and rest > self._most_rest):
            return []
        lane = self._best_lane(paths[-1])
        self._hold(lane)
        return self._first_blocks(lane, len(paths))

    def content(self, blocks: Sequence[int], index: int, tokens: Sequence[int]) -> Content | None:
        """Return what the `index`-th block of a text will hold; see `PathIndex.content`."""
        path = self._paths_of_lane[self._lane(blocks)][index - 1] if index else ROOT_PATH
        return self._index.content(path, index, tokens)

    def fits(self, matched: Sequence[int], needed: int, owed: int) -> bool:
        """Whether there is a lane for one more sequence."""
        return bool(self._free or self._kept) or (bool(matched) and self._holds_alone(matched))

    def take(self, matched: list[int]) -> list[int]:
        """Return the first blocks of a lane of one's own, with the matched content and at least one.

        The lane in which it was found is taken over if nothing is lost by it, or there is no other.
        """
        if not matched:
            return [self._claim() * self.lane_blocks]
        source = self._lane(matched)
        known = len(self._paths_of_lane[source])
        if self._holds_alone(matched) and (known == len(matched) or not (self._free or self._kept)):
            self._forget(source, first=len(matched))
            self._memory.copy(source, source, len(matched) * self.block_tokens)
            return matched
        target = self._claim()
        self._memory.copy(source, target, len(matched) * self.block_tokens)
        for index, path in enumerate(self._paths_of_lane[source][: len(matched)]):
            self._note(target, index, path)
        self.release(matched)
        return self._first_blocks(target, len(matched))

    def allocate(self, behind: Sequence[int]) -> int | None:
        """Return the block behind a sequence's last one, or None at the end of its lane."""
        block = behind[-1] + 1
        return block if block % self.lane_blocks else None

    def publish(self, blocks: Sequence[int], index: int, tokens: Sequence[int]) -> None:
        """Make known that `blocks[index]` now holds its part of the text."""
        path = self._index.publish(self.content(blocks, index, tokens))
        self._note(self._lane(blocks), index, path)

    def release(self, blocks: Sequence[int]) -> None:
        """Let go of a sequence's lane. It is kept if its content is known, and the oldest of many freed."""
        if not blocks:
            return
        lane = self._lane(blocks)
        self._holders[lane] -= 1
        assert self._holders[lane] >= 0, "a lane was released twice"
        if self._holders[lane]:
            return
        self._kept[lane] = None
        if not self._paths_of_lane[lane]:
            self._give_back(lane)
        elif len(self._kept) > self._most_kept:
            self._give_back(next(iter(self._kept)))

    def _give_back(self, lane: int) -> None:
        del self._kept[lane]
        self._forget(lane)
        self._memory.free(lane)
        self._free.append(lane)

    def _claim(self) -> int:
        """Hold a lane of no known content."""
        if self._free:
            lane = self._free.pop()
        else:
            lane, _ = self._kept.popitem(last=False)
            self._forget(lane)
        self._holders[lane] = 1
        return lane

    def _hold(self, lane: int) -> None:
        self._kept.pop(lane, None)
        self._holders[lane] += 1

    def _holds_alone(self, matched: Sequence[int]) -> bool:
        return self._holders[self._lane(matched)] == 1

    def _best_lane(self, path: int) -> int:
        """Return a lane that holds the path, best one that nobody else holds."""
        return min(self._lanes_of_path[path], key=lambda lane: (self._holders[lane], lane))

    def _lane(self, blocks: Sequence[int]) -> int:
        return blocks[0] // self.lane_blocks

    def _first_blocks(self, lane: int, count: int) -> list[int]:
        return [lane * self.lane_blocks + index for index in range(count)]

    def _note(self, lane: int, index: int, path: int) -> None:
        """The lane's `index`-th block holds the end of the path; those before it are noted."""
        self._paths_of_lane[lane][index : index + 1] = [path]
        self._lanes_of_path[path].add(lane)

    def _forget(self, lane: int, first: int = 0) -> None:
        """Forget what the lane holds from its `first`-th block on."""
        for path in self._paths_of_lane[lane][first:]:
            self._lanes_of_path[path].discard(lane)
            if not self._lanes_of_path[path]:
                del self._lanes_of_path[path]
                self._index.forget(path)
        del self._paths_of_lane[lane][first:]
