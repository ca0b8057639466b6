import logging

from engine.loading.progress import LINE_SECONDS, Progress


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_quick_load_says_nothing(caplog):
    clock = Clock()
    progress = Progress(1000, clock)
    with caplog.at_level(logging.INFO):
        for _ in range(10):
            clock.now += LINE_SECONDS / 11
            progress.add(100)
    assert caplog.messages == []


def test_a_slow_load_says_how_far_it_is_every_few_seconds(caplog):
    clock = Clock()
    progress = Progress(4_000_000_000, clock)
    with caplog.at_level(logging.INFO):
        for _ in range(8):
            clock.now += LINE_SECONDS / 2
            progress.add(500_000_000)
    assert caplog.messages == [
        "Loading: 25 % (1 GB of 4 GB)",
        "Loading: 50 % (2 GB of 4 GB)",
        "Loading: 75 % (3 GB of 4 GB)",
        "Loading: 100 % (4 GB of 4 GB)",
    ]
