"""Logits to the next token, each sequence by its own settings."""

from collections.abc import Iterable
from collections.abc import Sequence as Items

import torch

from contract import Sampling
from engine.noise import uniform
from engine.sequence import Sequence

#: Below this temperature the most probable token is taken: divided by less, float32 logits overflow.
LEAST_TEMPERATURE = 1e-5


def choose(logits: Iterable[torch.Tensor], sequences: Items[Sequence]) -> list[int]:
    """Return the next token of each sequence from its row of float32 logits [vocabulary]."""
    return [_choose_one(row, sequence) for row, sequence in zip(logits, sequences, strict=True)]


def _choose_one(logits: torch.Tensor, sequence: Sequence) -> int:
    sampling = sequence.sampling
    logits, ids = _restrict(_penalize(logits, sequence), sequence)
    if sampling.temperature < LEAST_TEMPERATURE:
        place = int(logits.argmax())
    else:
        noise = uniform(sequence.seed, 0, len(sequence.answer))
        place = draw(probabilities(logits, sampling), noise)
    return place if ids is None else int(ids[place])


def probabilities(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Return what temperature, top_k, top_p and min_p make of a row of logits; sums to 1.

    The filters act one after the other, in that order, each on the distribution that the one before
    it left (as in Hugging Face's and vLLM's samplers).
    """
    chances = torch.softmax(logits / sampling.temperature, dim=-1)
    if 0 < sampling.top_k < chances.numel():
        least = chances.topk(sampling.top_k).values[-1]
        chances = _renormalize(chances.where(chances >= least, 0))
    if sampling.top_p < 1:
        chances = _renormalize(_nucleus(chances, sampling.top_p))
    if sampling.min_p > 0:
        chances = _renormalize(chances.where(chances >= sampling.min_p * chances.max(), 0))
    return chances


def draw(chances: torch.Tensor, noise: float) -> int:
    """Return the place where the cumulated chances pass the noise, a number in [0, 1)."""
    cumulated = chances.double().cumsum(dim=-1)
    place = int(torch.searchsorted(cumulated, noise * float(cumulated[-1]), right=True))
    return place if place < chances.numel() else int(chances.nonzero()[-1])


def _nucleus(chances: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the fewest most probable tokens that reach `top_p` together; the first is always kept."""
    ordered, places = chances.sort(descending=True)
    outside = ordered.cumsum(dim=-1) - ordered >= top_p
    return chances.index_fill(-1, places[outside], 0)


def _renormalize(chances: torch.Tensor) -> torch.Tensor:
    return chances / chances.sum()


def _restrict(logits: torch.Tensor, sequence: Sequence) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the logits of what the constraint allows, with their ids; where it allows a great many,
    return all logits instead, with -inf for the others.
    """
    if sequence.constraint is None:
        return logits, None
    allowed = sequence.constraint.allowed()
    ends = sorted(sequence.end_ids) if sequence.constraint.may_end else []
    if isinstance(allowed, list):
        ids = torch.tensor(list(dict.fromkeys([*allowed, *ends])))
        return logits[ids], ids
    mask = torch.from_numpy(allowed)[: logits.numel()]
    if ends:
        mask = mask.index_fill(0, torch.tensor(ends), True)
    return logits.where(mask, -torch.inf), None


def _penalize(logits: torch.Tensor, sequence: Sequence) -> torch.Tensor:
    """Apply the penalties: repetition (Keskar et al. 2019) over prompt and answer, others over the answer."""
    sampling = sequence.sampling
    if sampling.repetition_penalty != 1:
        seen = torch.unique(torch.tensor(sequence.tokens))
        scores = logits[seen]
        factor = sampling.repetition_penalty
        logits = logits.index_copy(0, seen, torch.where(scores > 0, scores / factor, scores * factor))
    if (sampling.presence_penalty or sampling.frequency_penalty) and len(sequence.answer):
        said, counts = torch.unique(torch.tensor(sequence.answer), return_counts=True)
        penalty = sampling.presence_penalty + sampling.frequency_penalty * counts
        logits = logits.index_add(0, said, -penalty.to(logits.dtype))
    return logits
