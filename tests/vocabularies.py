"""Vocabularies that tests share: a byte-level one that is always there, and those of known models."""

import base64
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import sentencepiece
import tiktoken
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from engine.tokenizer import ChatTokenizer
from grammar import Vocabulary

#: Tokenizer files of known models; where the folder is absent, the tests that need it are skipped.
TOKENIZERS = Path(__file__).resolve().parents[2] / "shared" / "tokenizers"

#: How GLM-4 splits a text before its ranks are applied.
GLM4_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

#: The first id behind GLM-4's ranks; fifteen special tokens begin there.
GLM4_SPECIAL_TOKENS = 15


@cache
def small() -> Vocabulary:
    """Every byte, some longer tokens that cross the borders of an answer's pieces, one special token."""
    longer = [b'", "', b'{"1', b'"}', b"{}", b'{"', b'\\"', b"\\\\", b"ab", b"aba", " 中".encode(), b"}"]
    tokens = [bytes([byte]) for byte in range(256)] + longer
    return Vocabulary([*tokens, None], lambda text: list(text.encode()))


@cache
def greedy() -> Vocabulary:
    """The small vocabulary without a spelling of its own: the longest tokens are taken."""
    return Vocabulary(small().tokens, lambda _: ())


@cache
def qwen2_5_tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(folder("qwen2_5"), local_files_only=True)


@cache
def qwen2_5() -> Vocabulary:
    return ChatTokenizer(qwen2_5_tokenizer()).vocabulary


@cache
def glm4() -> Vocabulary:
    lines = (folder("glm4") / "tokenizer.model").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    encoding = tiktoken.Encoding("glm4", pat_str=GLM4_PATTERN, mergeable_ranks=ranks, special_tokens={})
    tokens = sorted(ranks, key=ranks.__getitem__)
    return Vocabulary([*tokens, *[None] * GLM4_SPECIAL_TOKENS], encoding.encode_ordinary)


@cache
def chatglm3() -> Vocabulary:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder("chatglm3") / "tokenizer.model"))

    def bytes_of(id_: int) -> bytes | None:
        if pieces.is_control(id_) or pieces.is_unknown(id_) or pieces.is_unused(id_):
            return None
        piece = pieces.id_to_piece(id_)
        if pieces.is_byte(id_):
            return bytes([int(piece[3:5], 16)])
        return piece.replace("▁", " ").encode()

    tokens = [bytes_of(id_) for id_ in range(pieces.get_piece_size())]
    return Vocabulary(tokens, pieces.encode, drops_first_space=True)


def folder(name: str) -> Path:
    """Return the folder of a model's tokenizer files; skips the test where there is none."""
    path = TOKENIZERS / name
    if not path.is_dir():
        pytest.skip(f"no tokenizer files in {path}")
    return path


ALL: list[Callable[[], Vocabulary]] = [small, greedy, qwen2_5, glm4, chatglm3]
