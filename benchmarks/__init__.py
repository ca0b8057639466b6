"""Measurements behind choices and figures in docs/performance.md; results lie beside them as JSON."""

from engine.waiting_threads import wait_briefly

wait_briefly()  # as a worker does it
