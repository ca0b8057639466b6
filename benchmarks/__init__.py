"""Measurements behind choices and figures in docs/performance.md; results lie beside them as JSON."""
