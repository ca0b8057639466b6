"""A gateway's end of the bus in a process that gevent has patched: prints one line of JSON."""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from subprocess import Popen  # noqa: E402

import gevent  # noqa: E402

from bus.client import BusClient  # noqa: E402
from tests.bus.house import chat, eventually  # noqa: E402


def read_some(client: BusClient, count: int) -> int:
    stream = client.submit(chat())
    for _ in range(count):
        next(stream)
    stream.close()
    return count


def longest_pause(seconds: float) -> float:
    """How long the other greenlets kept this one from running."""
    longest, deadline = 0.0, time.monotonic() + seconds
    while (before := time.monotonic()) < deadline:
        gevent.sleep(0.001)
        longest = max(longest, time.monotonic() - before)
    return longest


def main(folder: Path) -> None:
    client = BusClient(f"ipc://{folder}/green.ipc", cooperative=True)
    client.start()
    with Popen([sys.executable, "-m", "tests.bus.endless_worker", client.endpoint]) as worker:
        eventually(client.workers, seconds=30.0)
        readers = [gevent.spawn(read_some, client, 50) for _ in range(100)]
        pause = gevent.spawn(longest_pause, 1.0)
        gevent.joinall([*readers, pause], timeout=30.0)
        eventually(lambda: client.workers()[0].active == 0)

        killed = gevent.spawn(lambda: list(client.submit(chat())))
        eventually(lambda: client.workers()[0].active == 1)
        killed.kill(timeout=5.0)  # a client that leaves while its request waits
        eventually(lambda: client.workers()[0].active == 0)

        orphans = [gevent.spawn(lambda: list(client.submit(chat()))) for _ in range(10)]
        eventually(lambda: client.workers()[0].active == 10)
        worker.kill()
    eventually(lambda: not client.workers())
    stopping = gevent.spawn(client.stop)  # while they wait for another worker
    stopping.join(timeout=5.0)
    gevent.joinall(orphans, timeout=10.0)
    found = {
        "read": sum(reader.value for reader in readers),
        "longest_pause": pause.value,
        "killed_is_dead": killed.dead,
        "endings": sorted({orphan.value[-1].code for orphan in orphans}),
        "has_stopped": stopping.successful(),
        "after": [event.code for event in client.submit(chat())],
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
