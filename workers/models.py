"""Makes the model that a path names."""

import re
from pathlib import Path

from contract import Model
from engine.executors.native.huge_pages import HugePages
from engine.loading.expected import expected_bytes
from engine.waiting_threads import wait_briefly
from settings import SCRIPTED_PREFIX
from workers.errors import CannotLoad
from workers.placement import Board, Placement
from workers.scripted import ScriptedModel
from workers.upstream.reach import Reach

#: What follows `scripted:`: a pause before each token in seconds, if there is one, and what it says.
_SCRIPT = re.compile(r"(?:([0-9]+(?:\.[0-9]+)?):)?(.*)", re.DOTALL)


def create_model(
    path: str,
    name: str,
    placement: Placement,
    reach: Reach | None = None,
    *,
    board: Board | None = None,
) -> Model:
    """Load the model at `path`: the folder of a Hugging Face checkpoint, or `scripted:[SECONDS:]TEXT`.

    With `reach` it is a model on another server, `openai:URL[#MODEL]` or `yuan:URL`, with `board` the
    bmodel of a Sophon TPU. Raises CannotLoad, whose message is one line for people.
    """
    if reach is not None:
        from workers.upstream.opening import open_upstream  # brings requests and the grammars

        return open_upstream(path, name, reach)
    wait_briefly()  # before torch comes
    if board is not None:
        from workers.sophon import load_sophon_model  # brings torch as well

        return load_sophon_model(Path(path), name, board, placement)
    if path.startswith(SCRIPTED_PREFIX):
        return _scripted(path.removeprefix(SCRIPTED_PREFIX), name, placement.context_tokens)
    folder = Path(path)
    if not folder.is_dir():
        raise CannotLoad(f"no such model: {folder} is not a folder (download.py fetches models)")
    if not (folder / "config.json").is_file():
        raise CannotLoad(f"no model in {folder}: it holds no config.json")
    memory = _memory_ahead(folder, placement)
    from workers.local import load_local_model  # brings torch, which takes seconds

    return load_local_model(folder, name, placement, memory)


def _memory_ahead(folder: Path, placement: Placement) -> HugePages:
    """Return memory whose pages are being made from now on; none where the system gives no room."""
    size = expected_bytes(
        folder,
        placement.tier,
        device=placement.device,
        executor=placement.executor,
        memory_bytes=placement.memory_bytes,
    )
    try:
        return HugePages(size)
    except OSError:  # a limit on address space; the plan will say what fits
        return HugePages()


def _scripted(script: str, name: str, context_tokens: int) -> ScriptedModel:
    match = _SCRIPT.fullmatch(script)
    assert match is not None  # the pattern takes any text
    pause_seconds, text = float(match[1] or 0), match[2]
    if context_tokens:
        return ScriptedModel(text, pause_seconds=pause_seconds, name=name, context_tokens=context_tokens)
    return ScriptedModel(text, pause_seconds=pause_seconds, name=name)
