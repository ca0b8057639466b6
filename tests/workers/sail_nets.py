"""The nets of a tiny Qwen2 in numpy, laid out as the compilers for Sophon TPUs lay language models out."""

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


@dataclass(frozen=True)
class Port:
    name: str
    shape: tuple
    number: str


Ports = list[Port]


@dataclass(frozen=True)
class Stage:
    inputs: Ports
    outputs: Ports


@dataclass
class Net:
    """`compute(values)` takes and gives arrays by index, float32 or int32, those of all chips."""

    name: str
    stages: list
    compute_stage: object
    chips: int = 1
    is_dynamic: bool = False
    addr_mode: int = 0
    reads_inside: bool = False
    free_axes: list = field(default_factory=list)

    @property
    def all_inputs(self):
        return self.stages[0].inputs

    def compute(self, stage, values):
        return self.compute_stage(values)

    def check_dynamic(self, shapes):
        """Shapes may be smaller along some axes; neighbouring inputs must agree about how much."""
        for place, shape in enumerate(shapes):
            port = self.all_inputs[place % len(self.all_inputs)]
            free = self.free_axes[place % len(self.all_inputs)]
            for axis, (size, most) in enumerate(zip(shape, port.shape, strict=True)):
                assert 0 < size <= most if axis in free else size == most, f"{self.name}: {shape} for {port}"


class Weights:
    def __init__(self, folder):
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        self.layers = config["num_hidden_layers"]
        self.hidden = config["hidden_size"]
        self.query_heads = config["num_attention_heads"]
        self.heads = config["num_key_value_heads"]
        self.size = config.get("head_dim") or self.hidden // self.query_heads
        self.vocabulary = config["vocab_size"]
        self.epsilon = config["rms_norm_eps"]
        self.base = config["rope_parameters"]["rope_theta"]
        self.weights = {
            name: np.asarray(weight, np.float32)
            for name, weight in load_file(Path(folder) / "model.safetensors").items()
        }
        self.embedding = self.weights["model.embed_tokens.weight"]
        self.head = self.weights.get("lm_head.weight", self.embedding)

    def norm(self, states, name):
        scale = 1 / np.sqrt((states**2).mean(-1, keepdims=True) + self.epsilon)
        return states * scale * self.weights[name]

    def linear(self, states, name):
        out = states @ self.weights[f"{name}.weight"].T
        return out + self.weights.get(f"{name}.bias", 0)

    def rotate(self, states, positions):
        frequencies = self.base ** (-np.arange(0, self.size, 2) / self.size)
        angles = positions[:, None] * np.concatenate([frequencies, frequencies])
        half = self.size // 2
        turned = np.concatenate([-states[..., half:], states[..., :half]], -1)
        return states * np.cos(angles)[:, None, :] + turned * np.sin(angles)[:, None, :]

    def layer(self, number, states, positions, mask, keys_before, values_before, rounded):
        """[rows, hidden] and what stands before → states, and the new keys and values [rows, heads, size].

        These are `rounded` to the net's numbers before anything sees them, so that it makes no difference
        whether they come from the cache.
        """
        rows, prefix = len(states), f"model.layers.{number}"
        normed = self.norm(states, f"{prefix}.input_layernorm.weight")
        query, key, value = (
            self.linear(normed, f"{prefix}.self_attn.{name}_proj").reshape(rows, -1, self.size)
            for name in "qkv"
        )
        query, key = self.rotate(query, positions), rounded(self.rotate(key, positions))
        value = rounded(value)
        keys, values = np.concatenate([keys_before, key]), np.concatenate([values_before, value])
        share = self.query_heads // self.heads
        keys, values_ = keys.repeat(share, 1), values.repeat(share, 1)
        scores = np.einsum("qhd,khd->hqk", query, keys) / np.sqrt(self.size) + mask
        chances = np.exp(scores - scores.max(-1, keepdims=True))
        chances /= chances.sum(-1, keepdims=True)
        attended = np.einsum("hqk,khd->qhd", chances, values_).reshape(rows, -1)
        states = states + self.linear(attended, f"{prefix}.self_attn.o_proj")
        normed = self.norm(states, f"{prefix}.post_attention_layernorm.weight")
        gate, up = (self.linear(normed, f"{prefix}.mlp.{name}_proj") for name in ("gate", "up"))
        states = states + self.linear(gate / (1 + np.exp(-gate)) * up, f"{prefix}.mlp.down_proj")
        return states, key, value

    def logits(self, states):
        return self.norm(states, "model.norm.weight") @ self.head.T


@cache
def weights_of(folder):
    return Weights(folder)


def causal(rows, before=0):
    return np.triu(np.full((rows, before + rows), -10000.0, np.float32), k=before + 1)


def build_nets(description):
    """Return the nets by name.

    `description` has a checkpoint, the cache's length `context`, the prefill's `width`, a `form` (rows,
    heads, shifted, or columns, which is shifted with several texts) and may say `number`, `dynamic`,
    `masked` (a dynamic prefill with a mask), `history`, `logits`, `chips`, `lengths`.
    """
    return {net.name: net for net in Builder(description).nets()}


class Builder:
    def __init__(self, description):
        self.model = weights_of(description["checkpoint"])
        self.rows, self.width = description["context"], description["width"]
        self.form = description["form"]
        self.number = description.get("number", "bf16")
        self.is_dynamic = description.get("dynamic", False)
        self.has_mask = not self.is_dynamic or description.get("masked", False)
        self.has_history = description.get("history", False)
        self.has_logits = description.get("logits", True)
        self.chips = description.get("chips", 1)
        self.lengths = description.get("lengths") or [self.rows]
        self.columns = 4 if self.form == "columns" else 1
        self.heads = self.model.heads // self.chips
        self.missing = description.get("missing", [])

    def nets(self):
        made = [self.embedding("embedding", self.width), self.embedding("embedding_cache", 1), self.head()]
        if self.has_logits:
            made += [self.unused("greedy_head"), self.unused("sample_head")]
        for layer in range(self.model.layers):
            made += [self.block(layer), self.block_cache(layer)]
            if self.has_history:
                made.append(self.block_kv(layer))
        return [net for net in made if net.name not in self.missing]

    def embedding(self, name, width):
        shape = (self.columns, width)
        stage = Stage(
            [Port("input_ids", shape, "i32")],
            [Port("embed", (*shape, self.model.hidden), self.number)],
        )

        def compute(values):
            return {index: self.model.embedding[ids] for index, ids in values.items()}

        return Net(name, [stage], compute, self.chips)

    def head(self):
        hidden, vocabulary = self.model.hidden, self.model.vocabulary
        said = (
            Port("logits", (self.columns, vocabulary), "f32")
            if self.has_logits
            else Port("token", (self.columns, 1), "i32")
        )
        stage = Stage([Port("states", (self.columns, hidden), self.number)], [said])

        def compute(values):
            logits = self.model.logits(values[0])
            return {0: logits if self.has_logits else logits.argmax(-1)[:, None]}

        return Net("lm_head", [stage], compute)

    def unused(self, name):
        stage = Stage([Port("logits", (1, self.model.vocabulary), "f32")], [Port("token", (1, 1), "i32")])
        return Net(name, [stage], None, addr_mode=1)

    def states_port(self, width):
        by_column = self.form in ("columns", "older")
        shape = (width, self.columns, self.model.hidden) if by_column else (1, width, self.model.hidden)
        return Port("input_states", shape, self.number)

    def cache_shape(self, rows):
        size = self.model.size
        if self.form == "heads":
            return (1, self.heads, rows, size)
        if self.form in ("columns", "older"):
            return (rows, self.columns, self.heads, size)
        return (1, rows, self.heads, size)

    def outputs(self, width, cache_rows):
        shape = self.cache_shape(cache_rows)
        states = self.states_port(width)
        return [
            Port("output_states", states.shape, self.number),
            Port("k_cache", shape, self.number),
            Port("v_cache", shape, self.number),
        ]

    def block(self, layer):
        inputs = [self.states_port(self.width), Port("position_ids", (self.columns, self.width), "i32")]
        if self.has_mask:
            shape = (self.columns, 1, self.width, self.width)
            inputs.append(Port("attention_mask", shape, self.number))

        def compute(values):
            return self.run(layer, values, len(inputs), [])

        net = Net(
            f"block_{layer}",
            [Stage(inputs, self.outputs(self.width, self.width))],
            compute,
            self.chips,
            self.is_dynamic,
        )
        net.free_axes = [(1,), (1,), (2, 3)]
        return net

    def block_kv(self, layer):
        history = self.cache_shape(self.rows)
        inputs = [
            self.states_port(self.width),
            Port("position_ids", (1, self.width), "i32"),
            Port("history_k", history, self.number),
            Port("history_v", history, self.number),
        ]

        def compute(values):
            return self.run(layer, values, 4, [2, 3])

        net = Net(
            f"block_kv_{layer}",
            [Stage(inputs, self.outputs(self.width, self.width))],
            compute,
            self.chips,
            is_dynamic=True,
            reads_inside=True,
        )
        net.free_axes = [(1,), (1,), (1,), (1,)]
        return net

    def block_cache(self, layer):
        shifts = self.form in ("shifted", "columns", "older")

        def stage(length):
            return Stage(
                [
                    self.states_port(1),
                    Port("position_ids", (self.columns, 1), "i32"),
                    Port("attention_mask", (self.columns, 1, 1, length + 1), self.number),
                    Port("history_k", self.cache_shape(length), self.number),
                    Port("history_v", self.cache_shape(length), self.number),
                ],
                self.outputs(1, self.rows if shifts else 1),
            )

        def compute(values):
            return self.run(layer, values, 5, [3, 4], shifts=shifts)

        stages = [stage(length) for length in sorted(self.lengths, reverse=True)]
        return Net(f"block_cache_{layer}", stages, compute, self.chips, addr_mode=1)

    def run(self, layer, values, per_chip, history, *, shifts=False):
        """Compute every column, the chips' heads together, and give each chip its own."""
        made = [
            self.run_column(layer, values, per_chip, history, shifts, column)
            for column in range(self.columns)
        ]
        states, keys, caches = zip(*made, strict=True)
        out = {}
        for chip in range(self.chips):
            mine = slice(chip * self.heads, (chip + 1) * self.heads)
            out[3 * chip] = self.as_states(states)
            out[3 * chip + 1] = self.as_cache([key[:, mine] for key in keys])
            out[3 * chip + 2] = self.as_cache([cache[:, mine] for cache in caches])
        return out

    def run_column(self, layer, values, per_chip, history, shifts, column):
        firsts = range(0, per_chip * self.chips, per_chip)
        states = self.of_states(values[0], column)
        positions = values[1][column]
        rows = len(states)
        before = [
            np.concatenate([self.of_cache(values[first + index], column) for first in firsts], 1)
            for index in history
        ] or [np.zeros((0, self.model.heads, self.model.size), np.float32)] * 2
        has_mask = per_chip > 2 and 2 not in history
        mask = values[2][column, 0] if has_mask else causal(rows, len(before[0]))
        states, keys, new_values = self.model.layer(layer, states, positions, mask, *before, self.rounded)
        if shifts:
            keys = np.concatenate([before[0], keys])[1:]
            new_values = np.concatenate([before[1], new_values])[1:]
        return states, keys, new_values

    def rounded(self, values):
        return from_bits(to_bits(values, self.number), self.number)

    def of_states(self, states, column):
        return states[:, column] if self.form in ("columns", "older") else states[0]

    def as_states(self, states):
        return np.stack(states, 1) if self.form in ("columns", "older") else states[0][None]

    def of_cache(self, cache, column):
        if self.form == "heads":
            return cache[0].transpose(1, 0, 2)
        return cache[:, column] if self.form in ("columns", "older") else cache[0]

    def as_cache(self, caches):
        if self.form == "heads":
            return caches[0].transpose(1, 0, 2)[None]
        return np.stack(caches, 1) if self.form in ("columns", "older") else caches[0][None]


def from_bits(elements, number):
    if number == "bf16":
        return (elements.astype(np.uint32) << 16).view(np.float32)
    return elements.view(np.float16).astype(np.float32) if number == "f16" else elements.copy()


def to_bits(values, number):
    if number == "bf16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        rounded = bits + 0x7FFF + ((bits >> 16) & 1)
        return np.where(np.isnan(values), 0x7FC0, rounded >> 16).astype(np.uint16)
    if number == "f16":
        return np.ascontiguousarray(values, np.float16).view(np.uint16)
    return np.ascontiguousarray(values, np.int32 if number == "i32" else np.float32)
