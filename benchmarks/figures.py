"""What is made of many measurements: percentiles, summaries and ratios."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.chat_client import StreamRecord

#: Figures that are better the higher, and those that are better the lower; of others there is no ratio.
MORE_IS_BETTER = frozenset({"tokens_per_second"})
LESS_IS_BETTER = frozenset(
    {"first_token_p50_ms", "first_token_p99_ms", "last_first_token_ms", "between_pieces_p50_ms"}
    | {"between_pieces_p99_ms", "peak_mib", "start_seconds", "seconds_p50"}
)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that so many percent do not exceed, in between two values by proportion."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def tokens_per_second(records: Sequence[StreamRecord]) -> float:
    """Tokens of all answers over the time from the first question to the last end."""
    seconds = max(record.ended_at for record in records) - min(record.asked_at for record in records)
    return sum(record.tokens for record in records) / seconds


def summarize(rounds: Sequence[Sequence[StreamRecord]]) -> dict[str, Any]:
    """Return the figures of several rounds of streams that were asked at the same time."""
    records = [record for one in rounds for record in one]
    first = [record.first_token_seconds for record in records]
    gaps = [gap for record in records for gap in record.gaps_seconds]
    pieces = sum(len(record.piece_times) for record in records)
    tokens = sum(record.tokens for record in records)
    speeds = [tokens_per_second(one) for one in rounds]
    last = [max(record.first_token_seconds for record in one) for one in rounds]
    figures = {
        "tokens_per_second": statistics.median(speeds),
        "first_token_p50_ms": 1000 * percentile(first, 50),
        "first_token_p99_ms": 1000 * percentile(first, 99),
        "last_first_token_ms": 1000 * statistics.median(last),
        "between_pieces_p50_ms": 1000 * percentile(gaps, 50),
        "between_pieces_p99_ms": 1000 * percentile(gaps, 99),
        "tokens_per_piece": tokens / pieces if pieces else math.nan,
    }
    return {
        **{name: _rounded(value) for name, value in figures.items()},
        "tokens_per_second_of_rounds": [_rounded(speed) for speed in speeds],
        "prompt_tokens": sorted({int(record.usage.get("prompt_tokens", 0)) for record in records}),
        "answer_tokens": sorted({record.tokens for record in records}),
    }


def ratios(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float]:
    """Return for each figure how many times better ours is; below 1 it is worse."""
    result: dict[str, float] = {}
    for name in sorted((MORE_IS_BETTER | LESS_IS_BETTER) & ours.keys() & theirs.keys()):
        mine, other = ours[name], theirs[name]
        if mine and other:
            result[name] = float(f"{(mine / other if name in MORE_IS_BETTER else other / mine):.3g}")
    return result


def _rounded(value: float) -> float | None:
    """Three digits that count; JSON knows no NaN."""
    return None if math.isnan(value) else float(f"{value:.3g}")
