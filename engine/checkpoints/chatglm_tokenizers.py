"""Tokenizers of original ChatGLM2, ChatGLM3 and GLM-4 checkpoints, built from tokenizer.model as data.

Source: tokenization_chatglm.py of the published checkpoints; its code is never run.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from pathlib import Path

from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from engine.checkpoints.families import GLM4, Family, UnsupportedCheckpoint

#: How GLM-4 splits a text before its ranks are applied; the same as in its tokenization_chatglm.py.
GLM4_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

#: Sentencepiece's sign for a space.
_SPACE = "▁"

#: A text in which other settings of sentencepiece (normalization, spaces, dummy prefix) would show.
_PROBE = "  Ａﬁ①  a\tb \n\n你好，world 1024 <0x0A> ▁ 🙂 </s> "


def build_tokenizer(
    file: Path, family: Family, further_specials: Mapping[int, str]
) -> PreTrainedTokenizerFast:
    """Return the family's tokenizer from its tokenizer.model, with a chat template.

    `further_specials` are the checkpoint's own, by id, beyond those of the family. Raises
    UnsupportedCheckpoint if the file is not the family's or an id cannot be what it must be.
    """
    tokenizer = _from_ranks(file) if family is GLM4 else _from_sentencepiece(file)
    if (tokens := tokenizer.get_vocab_size()) != family.first_special:
        raise UnsupportedCheckpoint(
            f"tokenizer.model holds {tokens} tokens; {family.name}'s holds {family.first_special}"
        )
    specials = dict(enumerate(family.specials, family.first_special))
    specials |= {
        id_: name for id_, name in further_specials.items() if id_ >= family.first_special + len(specials)
    }
    end, unknown = (family.specials[0], None) if family is GLM4 else ("</s>", "<unk>")
    if family is not GLM4:
        specials |= dict(enumerate(("<unk>", "<s>", "</s>")))
    _add_specials(tokenizer, specials)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        chat_template=family.chat_template,
        eos_token=end,
        pad_token=unknown or end,
        unk_token=unknown,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def _add_specials(tokenizer: Tokenizer, specials: Mapping[int, str]) -> None:
    ordered = [specials[id_] for id_ in sorted(specials)]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in ordered])
    for id_, name in specials.items():
        if tokenizer.token_to_id(name) != id_:
            raise UnsupportedCheckpoint(f"the special token {name} cannot have the id {id_}")


def _from_ranks(file: Path) -> Tokenizer:
    """Byte-level BPE from tiktoken's ranks: base64 and rank, one token a line."""
    try:
        lines = [line.split() for line in file.read_bytes().splitlines()]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    except (ValueError, binascii.Error) as error:
        raise UnsupportedCheckpoint(f"tokenizer.model is damaged: {error}") from error
    if sorted(ranks.values()) != list(range(len(lines))):
        raise UnsupportedCheckpoint("tokenizer.model is damaged: its ranks are not 0, 1, 2, …")
    character = bytes_to_unicode()  # type: ignore[no-untyped-call]
    vocabulary = {"".join(character[byte] for byte in token): rank for token, rank in ranks.items()}
    model = models.BPE(vocab=vocabulary, merges=_merges(vocabulary), fuse_unk=False, ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(GLM4_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _from_sentencepiece(file: Path) -> Tokenizer:
    """Character-level BPE with a fallback to bytes, as sentencepiece's BPE with identity normalization."""
    try:
        processor = SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError) as error:
        raise UnsupportedCheckpoint("tokenizer.model is damaged: sentencepiece cannot read it") from error
    ids = range(processor.get_piece_size())
    vocabulary = {processor.id_to_piece(id_): id_ for id_ in ids}
    meta = {
        id_ for id_ in ids if processor.is_byte(id_) or processor.is_control(id_) or processor.is_unknown(id_)
    }
    by_score = sorted((id_ for id_ in ids if id_ not in meta), key=processor.get_score, reverse=True)
    mergeable = {processor.id_to_piece(id_): rank for rank, id_ in enumerate(by_score)}
    model = models.BPE(
        vocab=vocabulary, merges=_merges(mergeable), unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    if tokenizer.encode(_PROBE).ids != list(processor.encode(_PROBE)):
        raise UnsupportedCheckpoint("tokenizer.model is not of ChatGLM's kind (BPE, identity, byte fallback)")
    return tokenizer


def _merges(rank_of: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return every pair of tokens that makes a token, the best made first."""
    return [pair for token in sorted(rank_of, key=rank_of.__getitem__) for pair in _halves(token, rank_of)]


def _halves(token: str, rank_of: Mapping[str, int]) -> Iterable[tuple[str, str]]:
    places = range(1, len(token))
    pairs = ((token[:place], token[place:]) for place in places)
    known = [pair for pair in pairs if pair[0] in rank_of and pair[1] in rank_of]
    return sorted(known, key=lambda pair: (rank_of[pair[0]], rank_of[pair[1]]))
