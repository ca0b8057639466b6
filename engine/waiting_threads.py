"""How long the threads that share a step wait for each other before they go to sleep."""

import os

#: What tells GNU's OpenMP for how many rounds a thread waits before it sleeps.
VARIABLE = "GOMP_SPINCOUNT"

#: Rounds of the loop in which a thread waits. With fewer, torch's steps are slower where each thread has a
#: processor to itself; with more, all steps are slower beside a neighbour (benchmarks/neighbours.py).
SPIN_ROUNDS = 5_000


def wait_briefly() -> None:
    """Let OpenMP's threads sleep soon; call it before torch is imported, which reads this once.

    By itself GNU's OpenMP lets a thread turn round for milliseconds. If another program wants the same
    processor, that is taken for work: the thread that is waited for does not get the processor back before
    the other's turn has come, and a step with its hundreds of meetings takes 20 times as long. Whoever has
    set one of the two variables that say how to wait is obeyed.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(VARIABLE, str(SPIN_ROUNDS))
