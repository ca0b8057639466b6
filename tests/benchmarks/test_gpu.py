"""The measurement of a GPU runs through without one, so that it does on the day there is one."""

import json

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_model import TINY, bytes_per_token, make_model


def test_everything_is_measured_once(tmp_path, monkeypatch, capsys):
    out = tmp_path / "gpu.json"
    monkeypatch.setattr("sys.argv", ["gpu", "--device", "cpu", "--tiny", "--out", str(out)])
    monkeypatch.setattr(gpu, "TIMED_STEPS", 2)
    gpu.main()
    result = json.loads(out.read_text("utf-8"))
    assert json.loads(capsys.readouterr().out) == result
    assert result["device"] == "CPU"
    assert result["limit_tokens_per_second"] > 0
    assert set(result["step_milliseconds"]) == {"1", "2"}
    assert result["many_streams"]["streams"] == TINY.workload.streams
    assert result["books"]["answer_tokens"] > 20, "five titles are named"
    assert result["books"]["steps"] < result["books"]["answer_tokens"]
    assert result["generate"]["over_books_warm"] > 0


def test_the_table_of_input_tokens_is_not_read_for_a_row():
    model = make_model(TINY, torch.device("cpu"))
    everything = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    assert bytes_per_token(model) == everything - TINY.vocabulary * TINY.hidden * 2
    assert next(model.parameters()).dtype == torch.bfloat16


def test_unknown_devices_are_refused(monkeypatch):
    monkeypatch.setattr("sys.argv", ["gpu", "--device", "abacus", "--tiny"])
    with pytest.raises(RuntimeError, match="abacus"):
        gpu.main()
