"""Random walks: answers as a model without a mind would give them."""

import random
from dataclasses import dataclass

import numpy as np


@dataclass
class Walk:
    """The ids of an answer, and whether it came to its end."""

    ids: list[int]
    is_whole: bool


def ids_of(allowed):
    """Return the allowed ids as a list, whichever way they were told."""
    return np.flatnonzero(allowed).tolist() if isinstance(allowed, np.ndarray) else allowed


def walk(constraint, seed, *, is_forcing=True, most_tokens=120, end_chance=0.3):
    """Choose by random logits until the answer ends, by itself or where it may; or until it is too long."""
    chooser = random.Random(seed)
    ids = constraint.take_forced() if is_forcing else []
    while len(ids) < most_tokens:
        constraint.prepare()
        if constraint.is_finished:
            assert constraint.take_forced() == ids_of(constraint.allowed()) == []
            return Walk(ids, True)
        if constraint.may_end and chooser.random() < end_chance:
            return Walk(ids, True)
        allowed = ids_of(constraint.allowed())
        assert len(set(allowed)) == len(allowed) > 0 or constraint.may_end
        ids.append(chooser.choice(allowed))
        constraint.advance(ids[-1])
        ids += constraint.take_forced() if is_forcing else []
    return Walk(ids, constraint.is_finished)


def replay(grammar, ids):
    """Return the state behind the ids, got to one by one."""
    constraint = grammar.start()
    for id_ in ids:
        constraint.advance(id_)
    return constraint


def accepts(grammar, vocabulary, text):
    """Whether the text is a whole answer, spelled byte by byte."""
    byte_ids = {token: id_ for id_, token in enumerate(vocabulary.tokens) if token and len(token) == 1}
    try:
        constraint = replay(grammar, [byte_ids[bytes([byte])] for byte in text.encode()])
    except ValueError:
        return False
    return constraint.is_finished or constraint.may_end
