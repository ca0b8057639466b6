import math

import pytest

from benchmarks.chat_client import StreamRecord
from benchmarks.figures import percentile, ratios, summarize


def record(asked_at, *piece_times, tokens):
    usage = {"prompt_tokens": 127, "completion_tokens": tokens}
    return StreamRecord(asked_at, piece_times[-1], list(piece_times), usage=usage)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([3, 1, 2], 50, 2), ([1, 2], 50, 1.5), ([5], 99, 5), (range(101), 99, 99), ([1, 2, 3, 4], 100, 4)],
)
def test_percentiles_lie_between_values_by_proportion(values, percent, expected):
    assert percentile(values, percent) == pytest.approx(expected)


def test_nothing_has_no_percentile():
    assert math.isnan(percentile([], 50))


def test_a_summary_takes_the_median_of_rounds_and_the_last_stream_of_each():
    rounds = [
        [record(0, 1, 2, tokens=4), record(0, 3, 4, tokens=4)],  # 8 tokens in 4 s, last first token after 3
        [record(10, 11, 12, tokens=4)],  # 4 in 2 s, after 1
        [record(20, 20.5, 21, tokens=4)],  # 4 in 1 s, after 0.5
    ]
    figures = summarize(rounds)
    assert figures["tokens_per_second"] == 2
    assert figures["tokens_per_second_of_rounds"] == [2, 2, 4]
    assert figures["last_first_token_ms"] == 1000
    assert figures["first_token_p50_ms"] == 1000
    assert figures["between_pieces_p50_ms"] == 1000
    assert figures["tokens_per_piece"] == 2
    assert (figures["prompt_tokens"], figures["answer_tokens"]) == ([127], [4])


def test_a_figure_that_nobody_could_take_is_null():
    figures = summarize([[record(0, 1, tokens=1)]])
    assert figures["between_pieces_p50_ms"] is None


def test_a_ratio_above_one_is_better_whichever_way_the_figure_goes():
    ours = {"tokens_per_second": 30, "first_token_p50_ms": 100, "peak_mib": None, "tokens_per_piece": 1}
    theirs = {"tokens_per_second": 10, "first_token_p50_ms": 50, "peak_mib": 5, "tokens_per_piece": 2}
    assert ratios(ours, theirs) == {"tokens_per_second": 3, "first_token_p50_ms": 0.5}
