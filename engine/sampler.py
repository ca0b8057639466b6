"""Logits to the next token, each sequence by its own settings."""

import os
from collections.abc import Iterable
from collections.abc import Sequence as Items
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from contract import InvalidRequest, Sampling, ServingError, TokenLogprob
from engine.candidates import Candidates, Scores
from engine.logprobs import token_logprob
from engine.noise import uniform
from engine.sequence import Sequence
from grammar import Constraint

#: Threads that choose at the same time, the engine's own included. NumPy computes without Python's lock.
CHOOSING_THREADS = min(4, os.cpu_count() or 1)

#: Rows for which a thread is worth waking: 0.1 to 0.3 ms each.
LEAST_SHARE = 4

#: Seconds until choices that do not come fail their step.
CHOOSING_SECONDS = 30

#: Below this temperature the most probable token is taken: divided by less, float32 logits overflow.
LEAST_TEMPERATURE = 1e-5


@dataclass(frozen=True, slots=True)
class Chosen:
    """A sequence's next token, and how probable the model found it if that was asked for."""

    token: int
    logprob: TokenLogprob | None = None


def check_sampling(sampling: Sampling, vocabulary_size: int) -> None:
    """Raise InvalidRequest if the settings name a token beyond the vocabulary, or contradict each other."""
    if sampling.logit_bias and (highest := max(sampling.logit_bias)) >= vocabulary_size:
        raise InvalidRequest(
            f"logit_bias names token {highest}; this model's ids are 0 to {vocabulary_size - 1}"
        )
    if sampling.max_tokens is not None and sampling.min_tokens > sampling.max_tokens:
        raise InvalidRequest(
            f"min_tokens is {sampling.min_tokens}; at most max_tokens, which is {sampling.max_tokens}"
        )


def choose(
    logits: Iterable[torch.Tensor], sequences: Items[Sequence], threads: ThreadPoolExecutor | None = None
) -> list[Chosen | ServingError]:
    """Return the next token of each sequence, or why there is none.

    `logits` are rows of float32 on the host, [vocabulary] each, which are left as they are. A row's
    choice depends on the row and its sequence alone: each is worked on by itself, while it lies in
    the processor's cache. Where there are many, `threads` take their share of them.
    """
    rows = [(row.numpy(), sequence) for row, sequence in zip(logits, sequences, strict=True)]
    shares = 1 if threads is None else max(1, min(CHOOSING_THREADS, len(rows) // LEAST_SHARE))
    first, *others = (
        rows[len(rows) * share // shares : len(rows) * (share + 1) // shares] for share in range(shares)
    )
    begun = [] if threads is None else [threads.submit(_choose_each, share) for share in others]
    chosen = _choose_each(first)
    for one in begun:
        chosen += one.result(timeout=CHOOSING_SECONDS)
    return chosen


def _choose_each(rows: Items[tuple[Scores, Sequence]]) -> list[Chosen | ServingError]:
    with np.errstate(over="ignore"):  # a score that falls below all float32 numbers becomes -inf
        return [_choose_one(logits, sequence) for logits, sequence in rows]


def _choose_one(logits: Scores, sequence: Sequence) -> Chosen | ServingError:
    sampling = sequence.sampling
    candidates = _restrict(_adjust(logits, sequence), sequence)
    tells = sampling.logprobs is not None
    if not candidates.has_chances or (tells and not Candidates(logits).has_chances):
        return ServingError("the model gave no numbers to choose a token by")
    if sampling.temperature < LEAST_TEMPERATURE:
        token = candidates.best
    else:
        noise = uniform(sequence.seed, sequence.choice, sequence.answered)
        token = candidates.filtered(sampling).draw(sampling.temperature, noise)
    if sampling.logprobs is None:
        return Chosen(token)
    return Chosen(token, token_logprob(logits, token, sampling.logprobs, sequence.vocabulary))


def _adjust(logits: Scores, sequence: Sequence) -> Scores:
    """Add the bias, then apply the penalties, as vLLM does: repetition (Keskar et al. 2019) over prompt
    and answer, presence and frequency over the answer. Changes a copy, if anything.
    """
    sampling = sequence.sampling
    bans_end = _may_not_end(sequence) and sequence.constraint is None
    counts = sampling.repetition_penalty != 1 or sampling.presence_penalty or sampling.frequency_penalty
    if not (sampling.logit_bias or counts or bans_end):
        return logits
    scores = logits.copy()
    if sampling.logit_bias:
        _add_bias(scores, sampling.logit_bias)
    if counts:
        _penalize(scores, sequence)
    if bans_end:
        scores[_below(scores.size, sequence.end_ids)] = -np.inf
    return scores


def _add_bias(scores: Scores, bias: dict[int, float]) -> None:
    ids = np.fromiter(bias.keys(), np.int64, len(bias))
    has_score = ids < scores.size
    scores[ids[has_score]] += np.fromiter(bias.values(), np.float32, len(bias))[has_score]


def _penalize(scores: Scores, sequence: Sequence) -> None:
    sampling, tally = sequence.sampling, sequence.tally
    tally.update(sequence.tokens, sequence.prompt_tokens)
    seen = scores[tally.ids]
    if (factor := np.float32(sampling.repetition_penalty)) != 1:
        seen = np.where(seen > 0, seen / factor, seen * factor)
    if sampling.presence_penalty:
        seen -= np.float32(sampling.presence_penalty) * (tally.times > 0)
    if sampling.frequency_penalty:
        seen -= np.float32(sampling.frequency_penalty) * tally.times
    scores[tally.ids] = seen


def _may_not_end(sequence: Sequence) -> bool:
    """Whether the answer is to go on, as far as the constraint lets it."""
    return sequence.sampling.ignore_end or sequence.answered < sequence.sampling.min_tokens


def _restrict(scores: Scores, sequence: Sequence) -> Candidates:
    """Leave what the constraint allows. Where it allows a great many, all scores stay, with -inf for
    the others; where only the end is left, it is allowed, however short the answer is.
    """
    if sequence.constraint is None:
        return Candidates(scores)
    allowed = sequence.constraint.allowed()
    if isinstance(allowed, list):
        ids = _below(scores.size, _with_ends(allowed, sequence.constraint, sequence))
        return Candidates(scores[ids], ids)
    return Candidates(np.where(_mask(allowed[: scores.size], sequence.constraint, sequence), scores, -np.inf))


def _with_ends(allowed: list[int], constraint: Constraint, sequence: Sequence) -> set[int]:
    ids = set(allowed)
    if not constraint.may_end:
        return ids
    if _may_not_end(sequence) and not ids <= sequence.end_ids:
        return ids - sequence.end_ids
    return ids | sequence.end_ids


def _mask(allowed: NDArray[np.bool_], constraint: Constraint, sequence: Sequence) -> NDArray[np.bool_]:
    if not constraint.may_end:
        return allowed
    ends = _below(allowed.size, sequence.end_ids)
    mask = allowed.copy()
    mask[ends] = not _may_not_end(sequence)
    if not mask.any():
        mask[ends] = True
    return mask


def _below(size: int, ids: Iterable[int]) -> NDArray[np.int64]:
    """Return the ids ascending, without those that there is no logit for."""
    return np.array(sorted(id_ for id_ in ids if id_ < size), np.int64)
