"""Bmodels for the stand-in of `sophon.sail`, and that stand-in in its place."""

import gc
import json
import sys
from contextlib import contextmanager
from types import ModuleType

from tests.workers import sail_stand_in

#: One of each layout and kind, by name.
KINDS = {
    "static": {},
    "f16": {"number": "f16"},
    "dynamic": {"dynamic": True},
    "masked": {"dynamic": True, "masked": True},
    "history": {"dynamic": True, "history": True, "width": 16},
    "stages": {"dynamic": True, "history": True, "width": 16, "chunked_decode": True},
    "narrow": {"width": 48},
    "heads": {"form": "heads"},
    "shifted": {"form": "shifted"},
    "older": {"form": "older"},
    "columns": {"form": "columns"},
    "two_chips": {"dynamic": True, "history": True, "width": 16, "chips": 2},
}


def write_bmodel(path, checkpoint, kind="static", *, context=128, **description):
    """Write what stands for a compiled checkpoint; return the file."""
    said = {"form": "rows", "context": context, "width": context, **KINDS[kind], **description}
    if said.pop("chunked_decode", False):
        said["lengths"] = [
            said["width"] * 2**power for power in range(5) if said["width"] << power <= context
        ]
    path.write_text(json.dumps({"checkpoint": str(checkpoint), **said}), encoding="utf-8")
    return path


@contextmanager
def stand_in():
    """`sophon.sail` is the stand-in, with fresh chips; at the end no memory on them may be left."""
    package = ModuleType("sophon")
    package.sail = sail_stand_in
    before = {name: sys.modules.get(name) for name in ("sophon", "sophon.sail")}
    sys.modules.update({"sophon": package, "sophon.sail": sail_stand_in})
    try:
        with sail_stand_in.fresh_chips() as chips:
            yield chips
            gc.collect()  # what an error's traceback holds
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module
