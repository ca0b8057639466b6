"""What tests of the sampler choose from."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from engine.sampler import choose
from grammar import Allowed
from tests.engine.parts import VOCABULARY_SIZE, sequence_of

#: Ends an answer in these tests.
END = 257


def tokens_of(logits, sequences):
    return [chosen.token for chosen in choose(logits, sequences)]


def token_of(logits, sequence):
    """Return what is chosen from one row of numbers."""
    return tokens_of(torch.tensor([logits], dtype=torch.float32), [sequence])[0]


def ending_sequence(tokens, **options):
    sequence = sequence_of(tokens, **options)
    sequence.end_ids = frozenset({END})
    return sequence


@dataclass
class Allowing:
    """A constraint that stands still."""

    choice: Allowed
    may_end: bool = False
    is_finished: bool = False

    def prepare(self):
        """There is nothing to work out."""

    def allowed(self):
        return self.choice

    def advance(self, token):
        """It stays as it is."""

    def take_forced(self):
        return []


def masked(ids):
    mask = np.zeros(VOCABULARY_SIZE, np.bool_)
    mask[list(ids)] = True
    return mask


both_kinds = pytest.mark.parametrize("kind", [list, masked], ids=["listed", "masked"])


def falling(*firsts):
    """Return logits by which the tokens come in this order, then all others."""
    logits = [-10.0 - place for place in range(VOCABULARY_SIZE)]
    for place, token in enumerate(firsts):
        logits[token] = 10.0 - place
    return logits
