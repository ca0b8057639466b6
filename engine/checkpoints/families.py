"""What tells the original checkpoints of ChatGLM2, ChatGLM3 and GLM-4 apart."""

import re
from collections.abc import Sequence
from dataclasses import dataclass


class UnsupportedCheckpoint(ValueError):
    """An original checkpoint that cannot be served; the message is one line that says why."""


@dataclass(frozen=True, slots=True)
class Family:
    """One generation of models: its special tokens, its form of a conversation, its rotary scaling.

    `specials` are named in the order of their ids, the first of which is `first_special`: the number
    of tokens in tokenizer.model. `end_ids` end an answer. `contents_apart` says that the tokenizer
    encodes each message by itself, `ratio_scales_base` that `rope_ratio` multiplies the rotary base
    (10,000) rather than dividing the positions.
    """

    name: str
    first_special: int
    specials: tuple[str, ...]
    end_ids: tuple[int, ...]
    chat_template: str
    contents_apart: bool
    ratio_scales_base: bool


#: The originals call the start and end of a piece "sop" and "eop"; the brackets, which are GLM-4's, keep
#: ordinary words such as "philosophy" from holding the spelling of a special token.
_PIECE_SPECIALS = ("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>")

_ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")

#: `build_chat_input` of tokenization_chatglm.py, ChatGLM3 and GLM-4: role, end of line, content, per message.
_ROLES_TEMPLATE = (
    "[gMASK]<sop>{% for message in messages %}<|{{ message['role'] }}|>{{ '\\n' }}{{ message['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

#: `build_prompt` of ChatGLM2's tokenization_chatglm.py. It has no system messages: here one stands before
#: the rounds.
_ROUNDS_TEMPLATE = (
    "[gMASK]<sop>{% set round = namespace(number=0) %}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{% set round.number = round.number + 1 %}"
    "{{ '[Round ' ~ round.number ~ ']\\n\\n问：' ~ message['content'] ~ '\\n\\n答：' }}"
    "{% else %}{{ message['content'] ~ '\\n\\n' }}{% endif %}{% endfor %}"
)

CHATGLM2 = Family(
    name="ChatGLM2",
    first_special=64789,
    specials=_PIECE_SPECIALS,
    end_ids=(2,),
    chat_template=_ROUNDS_TEMPLATE,
    contents_apart=False,
    ratio_scales_base=False,
)

CHATGLM3 = Family(
    name="ChatGLM3",
    first_special=64789,
    specials=_PIECE_SPECIALS + _ROLES,
    end_ids=(2, 64795, 64797),
    chat_template=_ROLES_TEMPLATE,
    contents_apart=True,
    ratio_scales_base=True,
)

GLM4 = Family(
    name="GLM-4",
    first_special=151329,
    specials=(
        "<|endoftext|>",
        *_PIECE_SPECIALS,
        *_ROLES,
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
    ),
    end_ids=(151329, 151336, 151338),
    chat_template=_ROLES_TEMPLATE,
    contents_apart=True,
    ratio_scales_base=True,
)

#: The first line of a tiktoken file: a token in base64, a space, its rank.
_TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")

#: How a name says which of the two sentencepiece families it belongs to.
_NAMED_FAMILY = re.compile(r"chatglm[-_ ]?([23])", re.IGNORECASE)


def family_of(tokenizer_head: bytes, tokenizer_config: bytes, names: Sequence[str]) -> Family:
    """Return the family from the head of tokenizer.model, tokenizer_config.json, and names.

    ChatGLM2 and ChatGLM3 share their vocabulary and their config's form, so what names the model says
    decides, the most trusted first; only ChatGLM3's tokenizer_config.json can speak of roles.

    Raises UnsupportedCheckpoint if nothing tells ChatGLM2 from ChatGLM3.
    """
    if _TIKTOKEN_LINE.match(tokenizer_head):
        return GLM4
    for name in names:
        if named := _NAMED_FAMILY.search(name):
            return CHATGLM2 if named[1] == "2" else CHATGLM3
    if b"<|user|>" in tokenizer_config or b"<|assistant|>" in tokenizer_config:
        return CHATGLM3
    raise UnsupportedCheckpoint(
        "nothing says whether this is ChatGLM2 or ChatGLM3; put chatglm2 or chatglm3 into the folder's name"
    )
