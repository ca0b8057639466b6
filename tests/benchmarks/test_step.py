from benchmarks import step
from benchmarks.step import TimedExecutor, step_of, time_steps
from engine.batch import Span
from engine.executors.torch_executor import TorchExecutor
from tests.engine.parts import tiny_model


def test_a_step_gives_each_sequence_blocks_of_its_own():
    batch = step_of(2, 3, 20, 16)
    assert batch.spans == [Span(0, 3, 20, (0, 1)), Span(3, 3, 20, (2, 3))]
    assert batch.positions == [17, 18, 19] * 2
    assert batch.slots == [17, 18, 19, 49, 50, 51]
    assert batch.logit_rows == [2, 5]


def test_every_size_of_a_step_gets_its_figure(monkeypatch):
    for name, sizes in {
        "SEQUENCES": (1, 3),
        "CONTEXTS": (16, 40),
        "ROWS": (1, 20),
        "USUAL_CONTEXT": 24,
    }.items():
        monkeypatch.setattr(step, name, sizes)
    timed = TimedExecutor(TorchExecutor(tiny_model("Qwen2", vocabulary_size=2000), 1 << 24, 8 * 48))
    found = time_steps(timed)
    sizes = {
        kind: [(entry["sequences"], entry["rows"], entry["context_tokens"]) for entry in entries]
        for kind, entries in found.items()
    }
    assert sizes == {
        "by_batch": [(1, 1, 24), (3, 1, 24)],
        "by_context": [(8, 1, 16), (8, 1, 40)],
        "by_rows": [(1, 1, 24), (1, 20, 24)],
    }
    assert len(timed.steps) == 6 * (step.TIMES + 1)
    for entry in [entry for entries in found.values() for entry in entries]:
        rows = entry["sequences"] * entry["rows"]
        assert 0 < entry["milliseconds_per_row"] * rows <= 1.2 * entry["milliseconds"] + 1
