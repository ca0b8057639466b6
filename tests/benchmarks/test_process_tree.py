import subprocess
import sys

import pytest

from benchmarks.process_tree import MemoryWatch, cpu_seconds, family, memory_mib

#: A process whose child fills memory, says so, and waits to be ended.
PARENT = """
import subprocess, sys
subprocess.run([sys.executable, "-c", '''
import sys, time
began = time.process_time()
filled = bytearray(80 << 20)
while time.process_time() - began < 0.2: pass
print("filled", flush=True)
sys.stdin.read()
'''])
"""


@pytest.fixture
def tree():
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "filled\n"
        yield process.pid
        process.stdin.close()


def test_memory_and_time_of_children_count(tree):
    assert len(family(tree)) == 2
    assert 80 < memory_mib(tree) < 200
    assert cpu_seconds(tree) >= 0.2


def test_a_watch_keeps_the_peak(tree):
    watch = MemoryWatch(tree, sample_seconds=0.01)
    watch.start()
    assert watch.stop() > 80


def test_a_process_that_is_gone_uses_nothing():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(10)
    assert (family(process.pid), memory_mib(process.pid), cpu_seconds(process.pid)) == ([], 0, 0)
