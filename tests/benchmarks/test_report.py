import json

import pytest

from benchmarks.report import circumstances, cpu_model, write_report


def test_a_result_says_when_where_and_with_what():
    found = circumstances()
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["cpu"]
    assert found["versions"]["torch"]
    assert len(found["date"]) == 10
    assert found["command"]


def test_the_processor_is_read_from_cpuinfo():
    assert cpu_model("processor\t: 0\nmodel name\t: AMD EPYC 9R14\nflags\t: x\n") == "AMD EPYC 9R14"
    assert cpu_model("")


def test_a_report_is_json_with_its_characters(tmp_path):
    write_report(tmp_path / "new" / "serve_vllm.json", {"titles": "光学", "ratio": 1.5})
    text = (tmp_path / "new" / "serve_vllm.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"titles": "光学", "ratio": 1.5}
    assert "光学" in text


def test_a_figure_that_is_no_number_does_not_get_into_a_report(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_report(tmp_path / "x.json", {"ratio": float("nan")})
