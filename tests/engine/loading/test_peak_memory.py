"""How much memory a load takes at its highest, measured in a process of its own."""

import subprocess
import sys

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.engine.native import packed, small_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the highest use of memory")

#: Loads the folder as a worker does, with the memory that it asks for ahead; prints the plan's bytes for
#: the weights, and by how much the highest use of memory went beyond that of the process before (writing 5
#: begins to measure anew).
LOAD = """
import sys
import time
from pathlib import Path
import torch
from engine.checkpoints.checkpoint import open_checkpoint
from engine.executors.native.huge_pages import HugePages
from engine.loading.expected import expected_bytes
from engine.loading.load import plan_load
from engine.loading.plan import Wish

def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

def load(path, tier, executor):
    checkpoint, wish = open_checkpoint(Path(path)), Wish(tier, 512, False, 512)
    before = kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    expected = expected_bytes(
        Path(path), tier, device="cpu", executor=executor, memory_bytes=None
    )
    ahead = HugePages(expected)
    while ahead.made_bytes < expected:
        time.sleep(0.01)
    planned = plan_load(
        checkpoint, wish, is_cuda=False, memory_bytes=None, capacity=1, executor=executor, ahead=ahead
    )
    model = planned.carry_out_packed() if planned.is_native else planned.carry_out()
    print(planned.memory.weight_bytes, (kilobytes("VmHWM") - before) * 1024)

torch.set_num_threads(1)
load(sys.argv[1], *sys.argv[3:])  # what is imported on the way is there before it counts
load(sys.argv[2], *sys.argv[3:])
"""

#: What a load may take beside the weights and one layer: transformers' own bookkeeping, allocators' slack.
ALLOWANCE_BYTES = 32 << 20


def write(path, dtype, *, hidden_size, layers):
    config = Qwen2Config(
        vocab_size=8 * hidden_size,
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    model = model.to(dtype).to_empty(device="cpu")
    model.tie_weights()
    for number, weight in enumerate(model.parameters()):
        torch.nn.init.constant_(weight, 0.01 * number)
    model.save_pretrained(path, max_shard_size="80MB")
    return path


@pytest.mark.parametrize(
    ("dtype", "tier", "executor"),
    [
        (torch.bfloat16, "large", "torch"),
        (torch.float16, "large", "torch"),
        (torch.bfloat16, "medium", "torch"),
        (torch.float16, "small", "torch"),
        (torch.bfloat16, "large", "native"),
        (torch.float16, "large", "native"),
        (torch.bfloat16, "medium", "native"),
    ],
)
def test_a_load_takes_the_weights_and_one_layer_and_never_the_model_twice(tmp_path, dtype, tier, executor):
    if executor == "native":
        packed(small_model())  # skips where there is no native step
    warm_up = write(tmp_path / "small", dtype, hidden_size=128, layers=1)
    folder = write(tmp_path / "large", dtype, hidden_size=1024, layers=8)
    command = [sys.executable, "-c", LOAD, str(warm_up), str(folder), tier, executor]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    weights, peak = map(int, done.stdout.splitlines()[-1].split())
    layer = 8 * 1024 * 1024 * 4  # the widest, in the widest type
    assert weights > layer
    assert peak <= weights + layer + ALLOWANCE_BYTES
