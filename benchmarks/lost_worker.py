"""What readers notice when a worker is killed: `python -m benchmarks.lost_worker --help`.

Answers are streamed twice with the same seeds: once undisturbed, once with a worker killed in their midst.
"""

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.chat_client import StreamRecord, stream_at_once
from benchmarks.peers.commands import Job, chat_body, lectern
from benchmarks.process_tree import family
from benchmarks.prompts import PromptMaker
from benchmarks.report import RESULTS, circumstances, write_report
from benchmarks.running_server import OwnServer, free_port

#: Seconds in which everything must have been answered.
ANSWER_SECONDS = 300

#: Seconds after which a worker is killed: every answer has begun, and none has ended.
KILL_AFTER_SECONDS = 3.0


def main() -> int:
    """Measure and write the result."""
    options = _options()
    prompts = PromptMaker(options.model)
    contents = [prompts.draw(options.prompt_tokens) for _ in range(options.streams)]
    context_tokens = options.prompt_tokens + options.answer_tokens + 16
    job = Job(options.model, free_port(), os.cpu_count() or 1, options.streams, context_tokens)
    with tempfile.TemporaryDirectory(prefix="lectern-") as folder:
        flags = ("--workers", str(options.workers), "--database", f"sqlite:///{folder}/none.db")
        command = lectern(job, (*flags, *options.lectern_flags))
        with OwnServer(command, job.port, Path(folder, "lectern.log"), {"TMPDIR": folder}) as server:
            bodies = [
                server.chat_body(chat_body(server.model_name, content, options.answer_tokens, 0.7))
                | {"seed": place}
                for place, content in enumerate(contents)
            ]
            quiet = asyncio.run(stream_at_once(server.url, bodies, ANSWER_SECONDS))
            disturbed = asyncio.run(_with_a_loss(server, bodies))
    report = circumstances() | {
        "workers": options.workers,
        "streams": options.streams,
        "equal_texts": sum(one.text == other.text for one, other in zip(quiet, disturbed, strict=True)),
        "undisturbed": _gaps(quiet),
        "a_worker_killed": _gaps(disturbed),
    }
    print(report)
    write_report(options.output, report)
    return 0


async def _with_a_loss(server: OwnServer, bodies: Sequence[dict[str, Any]]) -> list[StreamRecord]:
    answers = asyncio.ensure_future(stream_at_once(server.url, bodies, ANSWER_SECONDS))
    await asyncio.sleep(KILL_AFTER_SECONDS)
    workers = [
        process for process in family(server.process_id) if "LLMapis.py" in " ".join(process.cmdline())
    ]
    os.kill(workers[0].pid, signal.SIGKILL)
    return await answers


def _gaps(records: Sequence[StreamRecord]) -> dict[str, Any]:
    """Return tokens, and the longest gap between two pieces of each answer, in milliseconds."""
    longest = sorted(1000 * max(record.gaps_seconds) for record in records)
    return {
        "tokens": [record.tokens for record in records],
        "longest_gaps_ms": [round(gap) for gap in longest],
        "median_longest_gap_ms": round(statistics.median(longest)),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lost_worker", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a checkpoint")
    parser.add_argument("--workers", type=int, default=1, help="workers; the first is killed")
    parser.add_argument("--streams", type=int, default=4, help="answers at once")
    parser.add_argument("--prompt-tokens", type=int, default=127)
    parser.add_argument("--answer-tokens", type=int, default=256)
    parser.add_argument("--lectern-flags", nargs="*", default=[], help="further flags of serveapi.py")
    parser.add_argument("--output", type=Path, default=RESULTS / "lost_worker.json", help="where to write")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
