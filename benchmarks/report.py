"""What every result says beside its figures: when, where, with which versions, by which command."""

import json
import os
import platform
import re
import shlex
import sys
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

#: Where results lie that are committed.
RESULTS = Path(__file__).parent / "results"

#: Packages of ours on which speed depends.
PACKAGES = ("torch", "transformers", "llguidance", "gevent", "gunicorn", "pyzmq")


def circumstances() -> dict[str, Any]:
    """Return date, machine, versions and command."""
    return {
        "date": date.today().isoformat(),
        "command": command(),
        "machine": machine(),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in PACKAGES},
    }


def command() -> str:
    """Return what was typed, as `python -m …` shows it."""
    module = sys.modules["__main__"].__spec__
    return shlex.join(["python", "-m", module.name, *sys.argv[1:]] if module else sys.argv)


def machine() -> dict[str, Any]:
    """Return what the processor is, how many cores this process may use, and how much memory there is."""
    return {
        "cpu": cpu_model(Path("/proc/cpuinfo").read_text()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def cpu_model(cpuinfo: str) -> str:
    """Return the processor's name from the text of /proc/cpuinfo."""
    match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write it as JSON that reads well in a diff."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
