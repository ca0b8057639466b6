"""What a worker's memory is used for, decided before anything is read: weights, steps and cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from engine.loading.sizes import gigabytes

#: The sizes a model is served in, the largest first, and the bits that a weight of a linear layer takes.
Tier = Literal["large", "medium", "small"]
BITS: dict[Tier, int] = {"large": 16, "medium": 8, "small": 4}

#: Tokens of a cache that is worth having: one full context, or this much of a longer one. A tier is
#: chosen so that they fit; a whole book in the context is not worth a smaller tier, unless it is asked for.
USEFUL_TOKENS = 8192

#: The shortest context that is served where none is asked for: a page of text and an answer.
LEAST_TOKENS = 1024


class DoesNotFit(Exception):
    """The model needs more memory than it may take; the message has the numbers and what would fit."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The bytes that weights, steps and cache may take together, and in words where they come from.

    The cache takes `cache_share` of what the weights leave, or more where one useful cache needs it.
    """

    size_bytes: int
    origin: str
    cache_share: float = 1.0

    def __str__(self) -> str:
        return f"{gigabytes(self.size_bytes)} ({self.origin})"


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model takes, in bytes: its weights by tier, a step beside them, a token in the cache.

    A cache is larger by `spare_tokens` than what it can hold: it consists of whole blocks, and keeps
    some for itself.
    """

    weight_bytes: Mapping[Tier, int]
    workspace_bytes: int
    token_bytes: int
    spare_tokens: int

    def cache_bytes(self, tokens: int) -> int:
        return (tokens + self.spare_tokens) * self.token_bytes


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for; `is_context_asked` tells a chosen context from the model's own.

    More than `most_tokens` in the cache are of no use.
    """

    tier: Tier | Literal["auto"]
    context_tokens: int
    is_context_asked: bool
    most_tokens: int

    @property
    def useful_tokens(self) -> int:
        return self.context_tokens if self.is_context_asked else min(self.context_tokens, USEFUL_TOKENS)

    @property
    def least_tokens(self) -> int:
        return self.context_tokens if self.is_context_asked else min(self.context_tokens, LEAST_TOKENS)


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How the memory is used, in bytes."""

    tier: Tier
    weight_bytes: int
    workspace_bytes: int
    cache_bytes: int
    cache_tokens: int

    @property
    def bits(self) -> int:
        return BITS[self.tier]

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.workspace_bytes + self.cache_bytes

    def __str__(self) -> str:
        return (
            f"{gigabytes(self.weight_bytes)} of weights (tier {self.tier}, {self.bits} bit) + "
            f"{gigabytes(self.workspace_bytes)} for steps + {gigabytes(self.cache_bytes)} of cache "
            f"({self.cache_tokens} tokens) = {gigabytes(self.total_bytes)}"
        )


def plan_memory(footprint: Footprint, budget: Budget, wish: Wish) -> MemoryPlan:
    """Choose tier and cache. Raises DoesNotFit.

    Where the tier is left open, it is the largest beside which a useful cache fits, or else the
    smallest, if that leaves the least that can be served.
    """
    tiers: tuple[Tier, ...] = tuple(BITS) if wish.tier == "auto" else (wish.tier,)
    room = {tier: _room_tokens(footprint, budget, tier) for tier in tiers}
    tier = next((tier for tier in tiers if room[tier] >= wish.useful_tokens), tiers[-1])
    if room[tier] < wish.least_tokens:
        raise DoesNotFit(_refusal(footprint, budget, wish, tier))
    weights = footprint.weight_bytes[tier]
    useful_tokens = min(room[tier], wish.useful_tokens)
    tokens = min(max(int(room[tier] * budget.cache_share), useful_tokens), wish.most_tokens)
    return MemoryPlan(tier, weights, footprint.workspace_bytes, footprint.cache_bytes(tokens), tokens)


def _room_tokens(footprint: Footprint, budget: Budget, tier: Tier) -> int:
    """Return how many tokens the cache can hold beside the weights; negative if not even they fit."""
    rest = budget.size_bytes - footprint.workspace_bytes - footprint.weight_bytes[tier]
    return rest // footprint.token_bytes - footprint.spare_tokens


def _refusal(footprint: Footprint, budget: Budget, wish: Wish, tier: Tier) -> str:
    weights, cache = footprint.weight_bytes[tier], footprint.cache_bytes(wish.least_tokens)
    needed = weights + footprint.workspace_bytes + cache
    return (
        f"tier {tier} needs {gigabytes(weights)} for weights, {gigabytes(footprint.workspace_bytes)} for "
        f"steps and {gigabytes(cache)} of cache for {wish.least_tokens} tokens, {gigabytes(needed)} in all; "
        f"it may take {budget}. {_what_fits(footprint, budget, wish)}"
    )


def _what_fits(footprint: Footprint, budget: Budget, wish: Wish) -> str:
    least = min(wish.least_tokens, LEAST_TOKENS)
    room = {tier: _room_tokens(footprint, budget, tier) for tier in BITS}
    fitting = [tier for tier in BITS if room[tier] >= least]
    if not fitting:
        return "No tier fits"
    whole = next((tier for tier in fitting if room[tier] >= wish.least_tokens), None)
    if whole:
        return f"What fits: --tier {whole}"
    return f"What fits: --tier {fitting[-1]} --context-tokens {room[fitting[-1]]}"
