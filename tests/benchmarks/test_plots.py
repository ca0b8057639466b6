import json

import pytest

from benchmarks.plots import write_plots
from benchmarks.report import write_report

SERVE = {
    "servers": {"lectern": {"name": "lectern"}, "peer": {"name": "vLLM (CPU)"}},
    "concurrency": {
        "1": {"lectern": {"tokens_per_second": 20}, "peer": {"tokens_per_second": 24}},
        "8": {"lectern": {"tokens_per_second": 107}, "peer": {"tokens_per_second": 105}},
    },
}

ENTRY = {"at_once": 1, "prefix": "warm", "who": "lectern form", "seconds_p50": 0.3, "steps": 7}

TASKS = {
    "entries": [
        {**ENTRY, "rows": 25, "plain_steps": 50},
        {**ENTRY, "rows": 100, "plain_steps": 55},
        {"at_once": 1, "prefix": "warm", "who": "vllm", "rows": 25, "failed": "TimeoutError"},
    ]
}

POINTS = [
    {"sequences": 1, "rows": 1, "context_tokens": 128, "milliseconds": 50},
    {"sequences": 8, "rows": 64, "context_tokens": 1024, "milliseconds": 60},
]


@pytest.mark.parametrize(
    ("result", "content", "plot", "words"),
    [
        ("serve_vllm", SERVE, "serve.svg", ["vLLM (CPU)", "streams at once"]),
        ("tasks", TASKS, "book_task.svg", ["lectern form, warm", "forced tokens and guesses"]),
        (
            "step",
            {"by_batch": POINTS, "by_context": POINTS, "by_rows": POINTS},
            "step.svg",
            ["sequences, one row each", "rows of one prompt"],
        ),
    ],
)
def test_each_kind_of_result_has_its_plot(tmp_path, result, content, plot, words):
    write_report(tmp_path / "results" / f"{result}.json", content)
    assert write_plots(tmp_path / "results", tmp_path / "plots") == [tmp_path / "plots" / plot]
    drawn = (tmp_path / "plots" / plot).read_text(encoding="utf-8")
    assert all(f"<!-- {word} -->" in drawn for word in words)


def test_the_same_results_give_the_same_file(tmp_path):
    write_report(tmp_path / "results" / "serve_vllm.json", SERVE)
    (first,) = write_plots(tmp_path / "results", tmp_path / "one")
    (second,) = write_plots(tmp_path / "results", tmp_path / "two")
    assert first.read_bytes() == second.read_bytes()


def test_without_results_there_is_nothing_to_draw(tmp_path):
    (tmp_path / "other.json").write_text(json.dumps({}))
    assert write_plots(tmp_path, tmp_path / "plots") == []
