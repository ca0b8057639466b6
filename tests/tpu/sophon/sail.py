"""The calls of `sophon.sail` 3.10 that Lectern makes, on the simulator, with sail's own names and rules.

It is no stricter and no kinder than sail, except that new memory is full of garbage.
"""

from sophon.engine import EngineLLM, SailEngineError
from sophon.tensor import Dtype, Handle, SailTensorError, Tensor

__version__ = "3.10.7"

__all__ = [
    "Dtype",
    "EngineLLM",
    "Handle",
    "SailEngineError",
    "SailTensorError",
    "Tensor",
    "get_available_tpu_num",
]

globals().update(Dtype.__members__)  # sail.BM_FLOAT16 is sail.Dtype.BM_FLOAT16


def get_available_tpu_num():
    """The simulator has one."""
    return 1
