"""Writes tiny checkpoints in the original form of ChatGLM2, ChatGLM3 and GLM-4, and computes them by hand."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.functional import silu

from engine.checkpoints.families import CHATGLM2, CHATGLM3, GLM4, Family

#: The folder of each family's tokenizer files; ChatGLM2 has ChatGLM3's tokenizer.model.
TOKENIZER_FOLDERS = {CHATGLM2.name: "chatglm3", CHATGLM3.name: "chatglm3", GLM4.name: "glm4"}

#: A name that the published checkpoints give themselves.
PUBLISHED_NAMES = {
    CHATGLM2.name: "THUDM/chatglm2-6b",
    CHATGLM3.name: "THUDM/chatglm3-6b",
    GLM4.name: "THUDM/glm-4-9b-chat",
}

#: What a file of code in the folder would do if anyone ran it.
TRAP = "from pathlib import Path\nPath({mark!r}).write_text('this ran')\n"

#: Places where the originals, or transformers, look for a checkpoint's own code.
CODE_FILES = (
    "configuration_chatglm.py",
    "modeling_chatglm.py",
    "tokenization_chatglm.py",
    "custom_generate/generate.py",
    "__init__.py",
)


def original_config(family: Family, vocabulary: int = 300, **changes: object) -> dict[str, object]:
    """Return a config.json as the family's publishers wrote it, with two layers and small sizes."""
    config: dict[str, object] = {
        "_name_or_path": PUBLISHED_NAMES[family.name],
        "model_type": "chatglm",
        "architectures": ["ChatGLMModel"],
        "auto_map": {
            "AutoConfig": "configuration_chatglm.ChatGLMConfig",
            "AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration",
            "AutoModelForCausalLM": "modeling_chatglm.ChatGLMForConditionalGeneration",
        },
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "apply_query_key_layer_scaling": True,
        "apply_residual_connection_post_layernorm": False,
        "attention_dropout": 0.0,
        "attention_softmax_in_fp32": True,
        "bias_dropout_fusion": True,
        "ffn_hidden_size": 48,
        "fp32_residual_connection": False,
        "hidden_dropout": 0.0,
        "hidden_size": 24,
        "kv_channels": 8,
        "layernorm_epsilon": 1e-5,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "num_attention_heads": 4,
        "num_layers": 2,
        "original_rope": True,
        "padded_vocab_size": vocabulary,
        "post_layer_norm": True,
        "pre_seq_len": None,
        "rmsnorm": True,
        "seq_length": 256,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vocab_size": vocabulary,
    }
    if family is GLM4:
        config |= {"rope_ratio": 500, "layernorm_epsilon": 1.5625e-07, "eos_token_id": [7, 8]}
    return config | changes


def random_weights(config: dict[str, object], silent_from: int | None = None) -> dict[str, torch.Tensor]:
    """Return weights under their original names, equal every time.

    From `silent_from` on, and for the first 300 ids, the output's rows are 0: those ids are never chosen.
    """
    generator = torch.Generator().manual_seed(11)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.4

    hidden, inner, vocabulary = config["hidden_size"], config["ffn_hidden_size"], config["padded_vocab_size"]
    heads = config["num_attention_heads"] * config["kv_channels"]
    fused = heads + 2 * config["multi_query_group_num"] * config["kv_channels"]
    weights = {
        "transformer.embedding.word_embeddings.weight": draw(vocabulary, hidden),
        "transformer.rotary_pos_emb.inv_freq": draw(config["kv_channels"] // 4),
        "transformer.encoder.final_layernorm.weight": 1 + draw(hidden),
        "transformer.output_layer.weight": draw(vocabulary, hidden),
    }
    if silent_from is not None:
        weights["transformer.output_layer.weight"][silent_from:] = 0
        weights["transformer.output_layer.weight"][:300] = 0
    for layer in range(config["num_layers"]):
        prefix = f"transformer.encoder.layers.{layer}."
        weights |= {
            prefix + "input_layernorm.weight": 1 + draw(hidden),
            prefix + "self_attention.query_key_value.weight": draw(fused, hidden),
            prefix + "self_attention.dense.weight": draw(hidden, heads),
            prefix + "post_attention_layernorm.weight": 1 + draw(hidden),
            prefix + "mlp.dense_h_to_4h.weight": draw(2 * inner, hidden),
            prefix + "mlp.dense_4h_to_h.weight": draw(hidden, inner),
        }
        if config["add_qkv_bias"]:
            weights[prefix + "self_attention.query_key_value.bias"] = draw(fused)
    return weights


def write_config(folder: Path, config: dict[str, object]) -> None:
    """Write config.json and a generation_config.json as the originals have it."""
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "pad_token_id": 0}))


def write_weights(folder: Path, weights: dict[str, torch.Tensor], shards: int = 1) -> None:
    """Write the weights into one safetensors file, or into several and an index."""
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
        return
    names = [f"model-{number + 1:05}-of-{shards:05}.safetensors" for number in range(shards)]
    places = {name: names[place % shards] for place, name in enumerate(weights)}
    for file in names:
        save_file({name: weight for name, weight in weights.items() if places[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def write_tokenizer(folder: Path, files: Path, family: Family) -> None:
    """Put the family's tokenizer.model and tokenizer_config.json into the folder."""
    (folder / "tokenizer.model").symlink_to(files / "tokenizer.model")
    config = json.loads((files / "tokenizer_config.json").read_bytes())
    if family is CHATGLM2:
        config = {"name_or_path": PUBLISHED_NAMES[family.name], "auto_map": config["auto_map"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_traps(folder: Path, mark: Path) -> None:
    """Put code wherever the originals have some; run, it writes the mark."""
    for name in CODE_FILES:
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(TRAP.format(mark=str(mark)))


@dataclass
class Reference:
    """The published computation in plain torch: fused projections, a rotary table, one text at a time."""

    config: dict[str, object]
    weights: dict[str, torch.Tensor]
    family: Family

    def logits(self, ids: list[int]) -> torch.Tensor:
        """Return the logits of every position, [tokens, vocabulary]."""
        rows = self._weight("transformer.embedding.word_embeddings")[ids]
        table = self._rotary_table(len(ids))
        for layer in range(self.config["num_layers"]):
            prefix = f"transformer.encoder.layers.{layer}."
            rows = rows + self._attention(self._norm(rows, prefix + "input_layernorm"), prefix, table)
            rows = rows + self._mlp(self._norm(rows, prefix + "post_attention_layernorm"), prefix)
        rows = self._norm(rows, "transformer.encoder.final_layernorm")
        return rows @ self._weight("transformer.output_layer").T

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """Return the most probable next tokens, one after the other."""
        answer: list[int] = []
        while len(answer) < count:
            answer.append(int(self.logits(ids + answer)[-1].argmax()))
        return answer

    def _weight(self, name: str) -> torch.Tensor:
        return self.weights[name + ".weight"].float()

    def _norm(self, rows: torch.Tensor, name: str) -> torch.Tensor:
        mean_square = rows.square().mean(dim=-1, keepdim=True)
        return self._weight(name) * rows / (mean_square + self.config["layernorm_epsilon"]).sqrt()

    def _mlp(self, rows: torch.Tensor, prefix: str) -> torch.Tensor:
        gate, up = (rows @ self._weight(prefix + "mlp.dense_h_to_4h").T).chunk(2, dim=-1)
        return (silu(gate) * up) @ self._weight(prefix + "mlp.dense_4h_to_h").T

    def _rotary_table(self, tokens: int) -> torch.Tensor:
        """Return cosine and sine, [tokens, pairs, 2], of half a head's size."""
        size = self.config["kv_channels"] // 2
        ratio = self.config.get("rope_ratio", 1)
        base, divisor = (10_000, ratio) if self.family is CHATGLM2 else (10_000 * ratio, 1)
        frequencies = 1.0 / base ** (torch.arange(0, size, 2).float() / size)
        angles = torch.outer(torch.arange(tokens).float() / divisor, frequencies)
        return torch.stack([angles.cos(), angles.sin()], dim=-1)

    def _rotate(self, heads: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Turn neighbouring pairs of the first half of every head, [tokens, heads, size]."""
        size = table.shape[1] * 2
        turned, kept = heads[..., :size], heads[..., size:]
        pairs = turned.reshape(*turned.shape[:-1], -1, 2)
        cosine, sine = table[:, None, :, 0], table[:, None, :, 1]
        first = pairs[..., 0] * cosine - pairs[..., 1] * sine
        second = pairs[..., 1] * cosine + pairs[..., 0] * sine
        return torch.cat([torch.stack([first, second], dim=-1).flatten(-2), kept], dim=-1)

    def _attention(self, rows: torch.Tensor, prefix: str, table: torch.Tensor) -> torch.Tensor:
        heads, groups = self.config["num_attention_heads"], self.config["multi_query_group_num"]
        size, tokens = self.config["kv_channels"], len(rows)
        name = prefix + "self_attention.query_key_value"
        fused = rows @ self._weight(name).T
        if self.config["add_qkv_bias"]:
            fused = fused + self.weights[name + ".bias"].float()
        query, key, value = fused.split([heads * size, groups * size, groups * size], dim=-1)
        query = self._rotate(query.view(tokens, heads, size), table)
        key = self._rotate(key.view(tokens, groups, size), table)
        key = key.repeat_interleave(heads // groups, dim=1)
        value = value.view(tokens, groups, size).repeat_interleave(heads // groups, dim=1)
        scores = torch.einsum("qhd,khd->hqk", query, key) / size**0.5
        scores = scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), float("-inf"))
        mixed = torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), value).flatten(1)
        return mixed @ self._weight(prefix + "self_attention.dense").T
