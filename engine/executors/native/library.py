"""The compiled step as Python calls it: what it refuses is raised."""

import ctypes
from collections.abc import Callable
from ctypes import POINTER, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path

from engine.executors.native.build import build
from engine.executors.native.processor import Instructions
from engine.executors.native.structures import Message, ModelWeights, PackOrder, StepRows


class NativeError(ValueError):
    """The native step refuses what it was given; the message names the field and the rule."""


class Library:
    """The functions of one library; they may be called from any thread, a model's by one at a time."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self._pack = _function(library, "lectern_pack", POINTER(PackOrder), c_int64)
        self._open = _function(library, "lectern_open", POINTER(ModelWeights), POINTER(c_void_p))
        self._step = _function(library, "lectern_step", c_void_p, POINTER(StepRows))
        self._close = library.lectern_close
        self._close.argtypes, self._close.restype = (c_void_p,), None

    def pack(self, order: PackOrder, threads: int) -> None:
        """Lay a weight out as panels, rounded if it is to have 8 bits. Raises NativeError."""
        self._pack(ctypes.byref(order), threads)

    def open(self, weights: ModelWeights) -> "OpenModel":
        """Return the model, which reads the weights' memory as long as it is open. Raises NativeError."""
        handle = c_void_p()
        self._open(ctypes.byref(weights), ctypes.byref(handle))
        return OpenModel(handle, self._step, self._close)


class OpenModel:
    """A model that steps can be run on until it is closed."""

    def __init__(
        self, handle: c_void_p, step: Callable[..., None], close: Callable[[c_void_p], None]
    ) -> None:
        self._handle = handle
        self._step = step
        self._close = close

    def step(self, rows: StepRows) -> None:
        """Compute the rows. Raises NativeError, before anything is written."""
        if not self._handle:
            raise NativeError("the model is closed")
        self._step(self._handle, ctypes.byref(rows))

    def close(self) -> None:
        """Give the step's own memory back; a second time does nothing."""
        handle, self._handle = self._handle, c_void_p()
        if handle:
            self._close(handle)

    def __del__(self) -> None:
        self.close()


@cache
def load_library(instructions: Instructions) -> Library:
    """Return the library for these instructions, compiled if need be. Raises CannotBuild.

    It is loaded after torch, so that both use one libgomp and with it one pool of threads.
    """
    return Library(build(instructions))


def _function(library: ctypes.CDLL, name: str, *arguments: type) -> Callable[..., None]:
    """Return a function that takes a place for its message as well, and raises the message."""
    function = getattr(library, name)
    function.argtypes, function.restype = (*arguments, POINTER(Message)), c_int

    def call(*values: object) -> None:
        message = Message()
        if function(*values, ctypes.byref(message)):
            raise NativeError(message.text.decode("utf-8", "replace"))

    return call
