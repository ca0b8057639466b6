"""A checkpoint's tokenizer: conversations to ids, and the bytes behind every id."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from contract import CannotDo, ChatMessage
from grammar import Vocabulary

#: Stands for a message's content while the chat template is rendered; private use characters.
PLACEHOLDER = "\ue2a1{index}\ue2a2"
PLACEHOLDERS = re.compile("\ue2a1(\\d+)\ue2a2")

#: How sentencepiece writes a space, and a byte that has no token of its own.
SENTENCEPIECE_SPACE = "▁"
BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class UnsupportedTokenizer(Exception):
    """The tokenizer is of a kind whose bytes are not known here, or has no chat template."""


class ChatTokenizer:
    """Turns conversations into prompt ids.

    A message is never read as anything but text: where its content holds the spelling of a control
    token, such as `<|user|>` or `</think>`, that spelling is encoded as ordinary characters.
    `contents_apart` says that the model has learned every content encoded by itself, not together with
    what stands before it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, contents_apart: bool = False) -> None:
        if not tokenizer.chat_template:
            raise UnsupportedTokenizer("the tokenizer has no chat template, so it cannot hold a conversation")
        self._tokenizer = tokenizer
        self._contents_apart = contents_apart
        self._controls = control_tokens(tokenizer)
        self._plain = without_tokens(tokenizer, self._controls)
        self.vocabulary = build_vocabulary(tokenizer, self._plain)
        _check_json(self.vocabulary)

    @property
    def end_id(self) -> int | None:
        """The token that ends a turn by the tokenizer's own account, if it names one."""
        id_: int | None = self._tokenizer.eos_token_id
        return id_

    def encode(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Return the prompt's ids, up to where the assistant's next turn begins.

        A last message of the assistant's is that turn's beginning: the ids end with its text. Raises
        CannotDo if the chat template refuses the conversation, as some do with a system message.
        """
        contents = [message.content for message in messages]
        if self._contents_apart or any(
            control in content for content in contents for control in self._controls
        ):
            return self._encode_apart(messages)
        return self._encode_template(self._render(messages, contents))

    def split(self, text: str) -> tuple[str, ...]:
        """Return the tokens of a text by itself, each as far as it is whole characters."""
        ids = self._plain.encode(text, add_special_tokens=False).ids
        return tuple(self.vocabulary.bytes_of([id_]).decode("utf-8", "replace") for id_ in ids)

    def _render(self, messages: Sequence[ChatMessage], contents: Sequence[str]) -> str:
        """Write the conversation as the template does; a turn to go on with is left open behind its text."""
        if messages[-1].role != "assistant":
            return self._apply_template(messages, contents, begins_turn=True)
        # Templates trim contents and put things behind them: where this one ends, a placeholder tells.
        place = PLACEHOLDER.format(index=len(messages) - 1)
        whole = self._apply_template(messages, [*contents[:-1], place], begins_turn=False)
        before, found, _ = whole.rpartition(place)
        if not found:
            raise CannotDo("the model's chat template has no place for the beginning of an answer")
        return before + contents[-1]

    def _apply_template(
        self, messages: Sequence[ChatMessage], contents: Sequence[str], *, begins_turn: bool
    ) -> str:
        turns = [
            {"role": message.role, "content": content}
            for message, content in zip(messages, contents, strict=True)
        ]
        apply = self._tokenizer.apply_chat_template
        try:
            return str(apply(turns, tokenize=False, add_generation_prompt=begins_turn))
        except Exception as error:  # the template is the checkpoint's own code, and may raise on purpose
            raise CannotDo(f"the model's chat template refuses this conversation: {error}") from error

    def _encode_template(self, text: str) -> list[int]:
        return list(self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)

    def _encode_apart(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Encode the template and the contents separately, special tokens only in the template."""
        places = [PLACEHOLDER.format(index=index) for index in range(len(messages))]
        parts = PLACEHOLDERS.split(self._render(messages, places))
        ids: list[int] = []
        for place, part in enumerate(parts):
            if place % 2 == 0:
                ids += self._encode_template(part)
            else:
                content = messages[int(part)].content
                ids += self._plain.encode(content, add_special_tokens=False).ids
        return ids


def control_tokens(tokenizer: PreTrainedTokenizerFast) -> frozenset[str]:
    """Return the spellings that stand for one id each, special or not; runs of white space are text."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values())
    return frozenset(content for content in added if not content.isspace())


def without_tokens(tokenizer: PreTrainedTokenizerFast, controls: frozenset[str]) -> Tokenizer:
    """Return a tokenizer to which the spellings of control tokens are characters like any others.

    It shares the model, which is the largest part of a tokenizer and takes the longest to be made.
    """
    known = tokenizer.backend_tokenizer
    plain = _stages_of(known)
    kept = {
        id_: token for id_, token in tokenizer.added_tokens_decoder.items() if token.content not in controls
    }
    plain.add_tokens([kept[id_] for id_ in sorted(kept)])
    if any(plain.token_to_id(token.content) != id_ for id_, token in kept.items()):
        # They were numbered behind control tokens, and now have the ids of those.
        plain = _stages_of(known)
    plain.encode_special_tokens = True
    return plain


def _stages_of(known: Tokenizer) -> Tokenizer:
    """Return a tokenizer with the same model, and what stands before and behind it, but no added tokens."""
    plain = Tokenizer(known.model)
    plain.normalizer = known.normalizer
    plain.pre_tokenizer = known.pre_tokenizer
    plain.post_processor = known.post_processor
    plain.decoder = known.decoder
    return plain


def build_vocabulary(tokenizer: PreTrainedTokenizerFast, plain: Tokenizer) -> Vocabulary:
    """Return the bytes of every id, from the tokenizer's own description of how it decodes.

    Raises UnsupportedTokenizer for a decoder that is neither byte-level (GPT-2) nor sentencepiece's.
    """
    decoder = tokenizer.backend_tokenizer.decoder
    decoders = set() if decoder is None else _decoder_types(msgspec.json.decode(decoder.__getstate__()))
    special = set(tokenizer.all_special_ids)
    special |= {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    id_of_piece = tokenizer.get_vocab()
    pieces: list[str | None] = [None] * (1 + max(id_of_piece.values()))  # some ids may stand for nothing
    for piece, id_ in id_of_piece.items():
        pieces[id_] = None if id_ in special else piece
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    if "ByteLevel" in decoders:
        tokens = [_byte_level_bytes(piece, added) for piece in pieces]
    elif "ByteFallback" in decoders or "Metaspace" in decoders:
        tokens = [_sentencepiece_bytes(piece, added) for piece in pieces]
    else:
        raise UnsupportedTokenizer(
            f"its decoder {sorted(decoders)} is neither byte-level nor sentencepiece's"
        )
    return Vocabulary(
        tokens,
        lambda text: plain.encode(text, add_special_tokens=False).ids,
        drops_first_space="Strip" in decoders or "Metaspace" in decoders,
    )


def _check_json(vocabulary: Vocabulary) -> None:
    """A tokenizer that was put together from missing files knows next to nothing."""
    try:
        vocabulary.spell('{"0123456789": ""}')
    except ValueError as error:
        raise UnsupportedTokenizer(f"its vocabulary cannot spell JSON: {error}") from error


def _decoder_types(decoder: dict[str, Any]) -> set[str]:
    return {str(decoder["type"])}.union(*(_decoder_types(part) for part in decoder.get("decoders", [])))


_BYTE_OF_CHARACTER = {character: byte for byte, character in bytes_to_unicode().items()}  # type: ignore[no-untyped-call]


def _byte_level_bytes(piece: str | None, added: set[str]) -> bytes | None:
    if piece is None or piece in added:
        return None if piece is None else piece.encode()
    return bytes(map(_BYTE_OF_CHARACTER.__getitem__, piece))


def _sentencepiece_bytes(piece: str | None, added: set[str]) -> bytes | None:
    if piece is None or piece in added:
        return None if piece is None else piece.encode()
    if (byte := BYTE_TOKEN.fullmatch(piece)) is not None:
        return bytes([int(byte[1], 16)])
    return piece.replace(SENTENCEPIECE_SPACE, " ").encode()
