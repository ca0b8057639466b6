"""Lectern against another server on one model: `python -m benchmarks.serve --help`.

Both are driven in turn through streamed /v1/chat/completions with the same prompts, in rounds, because a
machine's speed changes while one measures. The peer is halted while Lectern is driven; Lectern stays up while
the peer is, and how much processor time it took meanwhile is reported.
"""

import argparse
import asyncio
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from benchmarks.chat_client import ChatRefused, StreamRecord, stream_at_once
from benchmarks.figures import ratios, summarize
from benchmarks.peers.commands import PEERS, Job, NotInstalled, chat_body, lectern
from benchmarks.prompts import PromptMaker
from benchmarks.report import RESULTS, circumstances, write_report
from benchmarks.running_server import DidNotStart, OwnServer, RemoteServer, Server, free_port

#: Streams of a round at least: with fewer at once, several follow each other.
STREAMS_OF_A_ROUND = 4

#: Tokens of context beyond prompt and answer that servers are told to expect.
SPARE_TOKENS = 64


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("--peer", required=True, help=f"{', '.join(PEERS)} or the URL of a running server")
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--concurrency", type=whole_numbers, default=(1, 8, 32), help="streams at once")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each kind")
    parser.add_argument("--prompt-tokens", type=int, default=127)
    parser.add_argument("--answer-tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=600, help="longest time of one stream")
    parser.add_argument("--lectern-flags", type=shlex.split, default=[], help="further flags of serveapi.py")
    parser.add_argument("--output", type=Path, help="where the result goes, else benchmarks/results/")
    return parser.parse_args(arguments)


def whole_numbers(text: str) -> tuple[int, ...]:
    """Read '1,8,32'."""
    return tuple(int(word) for word in text.split(","))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start both servers, drive them in turn and return the report."""
    report: dict[str, Any] = circumstances()
    report["asked"] = {
        name: getattr(options, name) for name in ("prompt_tokens", "answer_tokens", "temperature", "rounds")
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lectern-")))
        servers = start_servers(options, folder, stack)
        maker = PromptMaker(options.model)
        levels = {str(count): measure_level(servers, maker, count, options) for count in options.concurrency}
        report["servers"] = {side: server.facts() for side, server in servers.items()}
    report["concurrency"] = levels
    report["ratios"] = {count: ratios(level["lectern"], level["peer"]) for count, level in levels.items()}
    report["ratios"]["server"] = ratios(report["servers"]["lectern"], report["servers"]["peer"])
    return report


def start_servers(options: argparse.Namespace, folder: Path, stack: ExitStack) -> dict[str, Server]:
    """Start Lectern and the peer, one after the other. Raises NotInstalled or DidNotStart."""
    tokens = options.prompt_tokens + options.answer_tokens + SPARE_TOKENS
    means = (options.threads, max(options.concurrency), tokens)
    job = Job(options.model.resolve(), free_port(), *means)
    flags = ("--database", f"sqlite:///{folder}/none.db", *options.lectern_flags)
    own = OwnServer(lectern(job, flags), job.port, folder / "lectern.log", {"TMPDIR": str(folder)})
    servers: dict[str, Server] = {"lectern": stack.enter_context(own)}
    if "://" in options.peer:
        servers["peer"] = RemoteServer(options.peer)
        return servers
    job = Job(options.model.resolve(), free_port(), *means)
    command = PEERS[options.peer](job)
    peer = OwnServer(command, job.port, folder / "peer.log", {})
    servers["peer"] = stack.enter_context(peer)
    return servers


def measure_level(
    servers: dict[str, Server], maker: PromptMaker, streams: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Drive each server with so many streams at once, in turn; return the figures of each."""
    rounds: dict[str, list[list[StreamRecord]]] = {side: [] for side in servers}
    idle: dict[str, list[float]] = {side: [] for side in servers}
    client_share = []
    for _ in range(options.rounds):
        bursts = max(1, STREAMS_OF_A_ROUND // streams)
        contents = [[maker.draw(options.prompt_tokens) for _ in range(streams)] for _ in range(bursts)]
        for side, server in servers.items():
            others = {name: other.cpu_seconds() for name, other in servers.items() if name != side}
            began, client_began = time.perf_counter(), time.process_time()
            with paused(servers["peer"]) if side == "lectern" else nullcontext():
                rounds[side] += [asyncio.run(drive(server, burst, options)) for burst in contents]
            seconds = time.perf_counter() - began
            client_share.append((time.process_time() - client_began) / seconds)
            for name, before in others.items():
                idle[name].append((servers[name].cpu_seconds() - before) / seconds)
        print(line_of(streams, rounds), flush=True)
    figures: dict[str, Any] = {side: summarize(records) for side, records in rounds.items()}
    for side, shares in idle.items():
        figures[side]["cores_while_the_other_is_driven"] = round(max(shares), 3)
    return figures | {"cores_of_the_client": round(max(client_share), 3)}


@contextmanager
def paused(server: Server) -> Generator[None, None, None]:
    """Halt the server meanwhile."""
    server.pause()
    try:
        yield
    finally:
        server.go_on()


async def drive(server: Server, contents: list[str], options: argparse.Namespace) -> list[StreamRecord]:
    """Ask for one answer to each content, all at once."""
    bodies = [
        server.chat_body(chat_body(server.model_name, content, options.answer_tokens, options.temperature))
        for content in contents
    ]
    return await stream_at_once(server.url, bodies, options.seconds)


def line_of(streams: int, rounds: dict[str, list[list[StreamRecord]]]) -> str:
    """Return what the last rounds showed, for whoever watches."""
    figures = {side: summarize(records[-1:]) for side, records in rounds.items()}
    words = [
        f"{side} {figure['tokens_per_second']} tokens/s, first token {figure['first_token_p50_ms']} ms"
        for side, figure in figures.items()
    ]
    return f"{streams} at once: {'; '.join(words)}"


def table_of(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table: each figure of both, and how many times better Lectern's is."""
    yield f"{'':40}{'Lectern':>12}{'peer':>12}{'better by':>12}"
    parts = {f"{count} at once, ": level for count, level in report["concurrency"].items()}
    for label, part in [*parts.items(), ("", report["servers"])]:
        better = report["ratios"][label.split(" ")[0] or "server"]
        for name in better:
            title = label + name.replace("_", " ")
            sides = f"{part['lectern'][name]:>12}{part['peer'][name]:>12}"
            yield f"{title:40}{sides}{better[name]:>12.2f}"


def main() -> int:
    """Measure, print the table and write the result."""
    options = read_options()
    if options.peer not in PEERS and "://" not in options.peer:
        print(f"serve: --peer must be {', '.join(PEERS)} or a URL, got {options.peer}", file=sys.stderr)
        return 2
    try:
        report = measure(options)
    except (NotInstalled, DidNotStart, ChatRefused, OSError, ValueError) as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    for line in table_of(report):
        print(line)
    name = re.sub(r"\W+", "_", options.peer.split("://")[-1])
    output = options.output or RESULTS / f"serve_{name}.json"
    write_report(output, report)
    print(f"written: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
