"""C-Eval, an exam of Chinese multiple-choice questions, over a running server: `python -m evals.ceval`."""
