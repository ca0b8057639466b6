"""Which tier and how much cache fit, by numbers alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.loading.budget import CPU_CACHE_SHARE, CPU_SHARE, cpu_budget, cuda_budget
from engine.loading.plan import (
    BITS,
    LEAST_TOKENS,
    USEFUL_TOKENS,
    Budget,
    DoesNotFit,
    Footprint,
    MemoryPlan,
    Wish,
    plan_memory,
)

#: A model of 16 GB in 16 bit; a token takes 100 kB, so that 8192 of them take 0.82 GB.
MODEL = Footprint(
    weight_bytes={"large": 16 * 10**9, "medium": 8 * 10**9, "small": 4 * 10**9},
    workspace_bytes=10**9,
    token_bytes=10**5,
    spare_tokens=48,
)
NO_LIMIT = 10**9


def plan(budget_gb, tier="auto", context=131_072, *, is_asked=False, most=NO_LIMIT, share=1.0) -> MemoryPlan:
    budget = Budget(int(budget_gb * 1e9), "--memory", share)
    return plan_memory(MODEL, budget, Wish(tier, context, is_asked, most))


@pytest.mark.parametrize(
    ("budget_gb", "tier"), [(100, "large"), (18, "large"), (17.5, "medium"), (10, "medium"), (6, "small")]
)
def test_auto_takes_the_largest_tier_beside_which_a_useful_cache_fits(budget_gb, tier):
    chosen = plan(budget_gb)
    assert chosen.tier == tier
    assert chosen.cache_tokens >= USEFUL_TOKENS
    assert chosen.total_bytes <= budget_gb * 1e9


def test_a_context_that_is_asked_for_counts_whole():
    assert plan(20, context=65_536).tier == "large"
    assert plan(20, context=65_536, is_asked=True).tier == "medium"


def test_a_short_context_needs_a_small_cache_only():
    assert plan(17.2, context=1024).tier == "large"


def test_the_smallest_tier_may_have_less_than_a_useful_cache():
    chosen = plan(5.3)
    assert chosen.tier == "small"
    assert LEAST_TOKENS <= chosen.cache_tokens < USEFUL_TOKENS


def test_a_tier_that_is_asked_for_is_taken_or_refused_never_changed():
    assert plan(100, "small").tier == "small"
    assert plan(17.2, "large").tier == "large"
    with pytest.raises(DoesNotFit, match="tier large needs 16 GB"):
        plan(17.1, "large")


def test_a_refusal_has_the_numbers_and_what_would_fit():
    with pytest.raises(DoesNotFit) as refused:
        plan(12, "large")
    message = str(refused.value)
    assert "16 GB for weights, 1 GB for steps and 107 MB of cache for 1024 tokens, 17.1 GB in all" in message
    assert "it may take 12 GB (--memory)" in message
    assert message.endswith("What fits: --tier medium")


def test_a_context_that_fits_no_tier_is_answered_with_the_one_that_does():
    with pytest.raises(DoesNotFit) as refused:
        plan(6, context=65_536, is_asked=True)
    tokens = int(str(refused.value).rpartition("--tier small --context-tokens ")[2])
    assert plan(6, "small", tokens, is_asked=True).cache_tokens >= tokens
    with pytest.raises(DoesNotFit):
        plan(6, "small", tokens + 1, is_asked=True)


def test_where_nothing_fits_nothing_is_recommended():
    with pytest.raises(DoesNotFit, match="No tier fits"):
        plan(3)


def test_the_cache_takes_its_share_or_what_is_useful():
    rest_tokens = (100 - 17) * 10**9 // MODEL.token_bytes
    assert plan(100, share=0.25).cache_tokens == pytest.approx(rest_tokens / 4, rel=0.01)
    assert plan(18, share=0.25).cache_tokens == USEFUL_TOKENS
    assert plan(100, most=2000).cache_tokens == 2000


@given(
    size=st.integers(1, 10**11),
    tier=st.sampled_from(["auto", *BITS]),
    context=st.integers(1, 10**6),
    is_asked=st.booleans(),
    capacity=st.integers(1, 100),
    share=st.sampled_from([0.25, 1.0]),
)
def test_no_plan_takes_more_than_it_may_nor_serves_less_than_asked(
    size, tier, context, is_asked, capacity, share
):
    wish = Wish(tier, context, is_asked, capacity * context)
    try:
        chosen = plan_memory(MODEL, Budget(size, "free", share), wish)
    except DoesNotFit:
        return
    assert chosen.total_bytes <= size
    assert chosen.cache_bytes == MODEL.cache_bytes(chosen.cache_tokens)
    assert chosen.cache_tokens >= wish.least_tokens
    assert chosen.cache_tokens <= wish.most_tokens
    assert tier in ("auto", chosen.tier)


def test_a_worker_on_the_cpu_takes_a_share_of_what_is_free():
    budget = cpu_budget(None, 10**10)
    assert (budget.size_bytes, budget.cache_share) == (10**10 * CPU_SHARE, CPU_CACHE_SHARE)
    assert str(budget) == "8 GB (80% of the 10 GB that are free)"


def test_what_is_asked_for_is_taken_whole_but_never_more_than_is_free():
    assert (cpu_budget(10**9, 10**10).size_bytes, cpu_budget(10**9, 10**10).cache_share) == (10**9, 1.0)
    short = cpu_budget(10**10, 10**9)
    assert short.size_bytes == 10**9
    assert "of --memory 10 GB only 1 GB are free" in str(short)


def test_gpus_are_counted_together():
    assert cuda_budget(None, [10**10, 10**10]).size_bytes == 17 * 10**9
    assert cuda_budget(10**9, [10**10, 10**10]).size_bytes == 10**9
    with pytest.raises(DoesNotFit, match="no GPU"):
        cuda_budget(None, [])
