import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launch import Command, RestartPolicy, Supervisor
from tests.processes import GONE_SECONDS, is_running, kill, wait_until_gone

#: Deaths follow each other without pauses worth waiting for.
QUICK = RestartPolicy(first_pause_seconds=0.01, patience=3)

#: Says that it is up, and ends when asked to.
FAITHFUL = "import signal; print('up', flush=True); signal.pause()"


def python(name, script, *arguments):
    return Command(name, (sys.executable, "-c", script, *map(str, arguments)), os.environ)


class Listener:
    """Keeps what the supervisor says, and asks it to stop when it says the awaited line."""

    def __init__(self, awaited=None, times=1):
        self.lines = []
        self._awaited, self._times = awaited, times

    def __call__(self, line):
        self.lines.append(line)
        if self._awaited is not None and self._awaited in line:
            self._times -= 1
            if self._times == 0:
                os.kill(os.getpid(), signal.SIGTERM)

    def heard(self, words):
        return sum(words in line for line in self.lines)


def supervise(workers, say, gateway=FAITHFUL, **options):
    options.setdefault("policy", QUICK)
    return Supervisor(python("gateway", gateway), workers, say, **options).run()


def test_lines_of_the_processes_are_passed_on_with_their_names():
    say = Listener(awaited="] up", times=3)
    assert supervise([python("worker 1", FAITHFUL), python("worker 2", FAITHFUL)], say) == 0
    assert {"[gateway] up", "[worker 1] up", "[worker 2] up"} <= set(say.lines)


def test_errors_count_as_output_and_bytes_that_are_no_text_do_no_harm():
    script = "import os; os.write(2, b'\\xff' + b'x' * 40000 + b'\\n'); os.write(1, b'end without newline')"
    say = Listener(awaited="ended with exit status 0")
    supervise([python("worker", script)], say)
    assert sum(line.count("x") for line in say.lines if line.startswith("[worker]")) == 40000
    assert say.heard("[worker] end without newline") == 1


def test_a_worker_that_dies_is_told_with_its_last_words_and_starts_again(tmp_path):
    died = tmp_path / "died"
    script = (
        "import pathlib, signal, sys\n"
        "died = pathlib.Path(sys.argv[1])\n"
        "if not died.exists():\n"
        "    died.touch(); print('farewell'); sys.exit(3)\n"
        "print('up again', flush=True); signal.pause()"
    )
    say = Listener(awaited="up again")
    assert supervise([python("worker", script, died)], say) == 0
    assert say.heard("worker ended with exit status 3 after") == 1
    assert "  | farewell" in say.lines


def test_only_the_last_words_of_a_long_speech_are_repeated():
    script = "for number in range(100): print(f'line {number}')"
    say = Listener()
    supervise([python("worker", script)], say, policy=RestartPolicy(patience=1))
    assert [line for line in say.lines if line.startswith("  | ")] == [
        f"  | line {number}" for number in range(80, 100)
    ]


def test_a_worker_that_can_never_start_is_not_tried_again():
    say = Listener()
    assert supervise([python("worker", f"print('no model'); exit({os.EX_CONFIG})")], say) == 1
    assert say.heard("worker ended with exit status 78") == 1
    assert say.heard("without a worker") == 1
    assert "  | no model" in say.lines


def test_a_worker_that_keeps_dying_is_given_up():
    say = Listener()
    assert supervise([python("worker", "raise SystemExit('broken')")], say) == 1
    assert say.heard("starts again") == 2
    assert say.heard("giving up: it died 3 times in a row") == 1


def test_one_worker_without_hope_does_not_end_the_others():
    say = Listener(awaited="giving up")
    hopeless = python("hopeless", f"exit({os.EX_CONFIG})")
    assert supervise([hopeless, python("faithful", FAITHFUL)], say) == 0


def test_nothing_goes_on_without_a_gateway():
    say = Listener()
    assert supervise([python("worker", FAITHFUL)], say, gateway="raise SystemExit(1)") == 1
    assert say.heard("without a gateway") == 1


def test_a_process_killed_from_outside_is_told_by_the_signal():
    script = "import os; os.kill(os.getpid(), 9)"
    say = Listener()
    supervise([python("worker", script)], say)
    assert say.heard("worker was killed by SIGKILL") == 3


def test_a_stop_lets_processes_finish_what_they_do():
    script = (
        "import signal, threading\n"
        "stop = threading.Event()\n"
        "signal.signal(signal.SIGTERM, lambda *_: stop.set())\n"
        "print('up', flush=True); stop.wait(60); print('finished', flush=True)"
    )
    say = Listener(awaited="[worker] up")
    assert supervise([python("worker", script)], say) == 0
    assert say.heard("[worker] finished") == 1
    assert say.heard("is killed") == 0


STUBBORN = (
    "import signal\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('up', flush=True)\n"
    "while True: signal.pause()"
)


def test_a_process_that_does_not_end_in_time_is_killed():
    say = Listener(awaited="[worker] up")
    assert supervise([python("worker", STUBBORN)], say, drain_seconds=0.2) == 0
    assert "worker is killed: it did not end in time" in say.lines
    assert "worker has ended" in say.lines


def test_a_second_request_to_stop_ends_the_patience(monkeypatch):
    monkeypatch.setattr("launch.supervisor.SAME_REQUEST_SECONDS", 0.0)
    lines = Listener(awaited="[worker] up")

    def say(line):
        lines(line)
        if line == "gateway has ended":
            os.kill(os.getpid(), signal.SIGINT)

    assert supervise([python("worker", STUBBORN)], say, drain_seconds=60) == 0
    assert lines.heard("worker is killed") == 1


def test_what_a_dead_process_had_started_ends_with_it():
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        "print('child', child.pid, flush=True)\n"
        "import os; os._exit(78)"
    )
    say = Listener()
    supervise([python("worker", script)], say)
    (line,) = [line for line in say.lines if line.startswith("[worker] child")]
    wait_until_gone([int(line.split()[-1])])


def test_signals_are_handled_as_before_after_the_end():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)]
    supervise([python("worker", FAITHFUL)], Listener(awaited="[worker] up"))
    assert before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)]


@pytest.fixture
def started():
    """A supervisor in a process of its own with two children, and the children's ids."""
    script = (
        "import os, sys\n"
        "from launch import Command, Supervisor\n"
        "child = 'import os, signal; print(os.getpid(), flush=True); signal.pause()'\n"
        "one, other = (Command(name, (sys.executable, '-c', child), os.environ) for name in 'ab')\n"
        "sys.exit(Supervisor(one, [other], lambda line: print(line, flush=True)).run())"
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    pids = []
    try:
        pids += [int(process.stdout.readline().split()[-1]) for _ in range(2)]
        yield process, pids
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        kill(pids)


def test_a_killed_supervisor_takes_its_processes_along(started):
    process, pids = started
    process.kill()
    process.wait()
    wait_until_gone(pids)


def test_ctrl_c_in_the_terminal_reaches_the_supervisor_alone_and_ends_all(started):
    process, pids = started
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(GONE_SECONDS) == 0
    assert not any(map(is_running, pids))
