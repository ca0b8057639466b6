"""Tokenizers and checkpoints small enough to be made in a test."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.engine.parts import tiny_model

SPECIAL = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")

#: An added token that is text to the model, such as those around a tool's call.
NOT_SPECIAL = "<think>"

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def byte_level_tokenizer(**options) -> PreTrainedTokenizerFast:
    """GPT-2's kind: every byte a token, a few merges."""
    letters = bytes_to_unicode()
    vocabulary = {letters[byte]: byte for byte in range(256)}
    merges = [("a", "b"), ("ab", "c"), ("Ġ", "a"), ("ä", "¸"), ("ä¸", "Ń"), ("|", ">")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _finish(tokenizer, options)


def sentencepiece_tokenizer(**options) -> PreTrainedTokenizerFast:
    """Llama 2's kind: spaces as ▁, one put before the text; bytes where a character has no piece."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefg中文", "ab", "▁a", "▁ab"]
    merges = [("a", "b"), ("▁", "a"), ("▁a", "b")]
    vocabulary = {piece: id_ for id_, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _finish(tokenizer, {"unk_token": "<unk>", **options})


def _finish(tokenizer: Tokenizer, options: dict) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken(NOT_SPECIAL, normalized=False, special=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{"eos_token": "<|end|>", "chat_template": CHAT_TEMPLATE, **options}
    )


def write_checkpoint(path: Path, architecture: str = "Qwen2") -> Path:
    """Write a model with random weights and its tokenizer; return the folder."""
    tokenizer = byte_level_tokenizer()
    model = tiny_model(architecture, vocabulary_size=len(tokenizer))
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
