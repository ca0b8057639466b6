"""How properties are tried: by number of examples, never by the clock, for the machine may be busy."""

from hypothesis import HealthCheck, settings


def examples(count: int, *, steps: int = 50) -> settings:
    """Return settings for so many examples; `steps` bounds the rules of one run of a state machine."""
    return settings(
        deadline=None,
        max_examples=count,
        stateful_step_count=steps,
        suppress_health_check=[HealthCheck.too_slow],
    )
