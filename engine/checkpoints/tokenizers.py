"""A tokenizer in a folder of its own, without weights and perhaps without a config."""

import json
from pathlib import Path

from engine.checkpoints import original, plain
from engine.tokenizer import ChatTokenizer

#: Files that name the ids that end an answer; the first that there is counts.
END_FILES = ("generation_config.json", "config.json")


def load_tokenizer(path: Path) -> tuple[ChatTokenizer, frozenset[int]]:
    """Return the folder's tokenizer and the ids that end an answer.

    Raises whatever says why it cannot be used.
    """
    if not (path / "tokenizer.json").is_file() and original.is_original_tokenizer(path):
        return original.load_tokenizer(path), original.end_ids(path)
    tokenizer = plain.load_tokenizer(path)
    ids = _said_end_ids(path)
    return tokenizer, ids if tokenizer.end_id is None else ids | {tokenizer.end_id}


def _said_end_ids(path: Path) -> frozenset[int]:
    for file in (path / name for name in END_FILES):
        if not file.is_file():
            continue
        said = json.loads(file.read_bytes()).get("eos_token_id")
        if said is not None:
            return frozenset([said] if isinstance(said, int) else said)
    return frozenset()
