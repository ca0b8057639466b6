"""What each kind of OpenAI-compatible server knows beyond OpenAI's own API, and how it calls it.

Read from their sources: vLLM 0.32 (entrypoints/openai/chat_completion/protocol.py), llama.cpp b9700 and later
(tools/server/server-schema.cpp), SGLang's openai/protocol.py, and Ollama's docs/openai.md.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from contract import AnswerForm, Choices, ChooseRows, Ebnf, JsonObject, JsonSchema, Regex
from workers.upstream.answers import untold

#: Our names of what every such server knows, and its names.
COMMON = MappingProxyType(
    {
        "temperature": "temperature",
        "top_p": "top_p",
        "presence_penalty": "presence_penalty",
        "frequency_penalty": "frequency_penalty",
        "max_tokens": "max_tokens",
        "stop": "stop",
        "seed": "seed",
        "logprobs": "top_logprobs",
    }
)
EXTENDED = MappingProxyType(
    {
        **COMMON,
        "logit_bias": "logit_bias",
        "top_k": "top_k",
        "min_p": "min_p",
        "repetition_penalty": "repetition_penalty",
        "min_tokens": "min_tokens",
        "ignore_end": "ignore_eos",
    }
)

#: Bytes of the longest schema that is sent for a choice of rows; a longer list is only checked here.
ROWS_SCHEMA_BYTES = 256 * 1024

#: Tokens over which llama.cpp counts a penalty: above most contexts, where its own default is the last 64.
LLAMA_PENALTY_TOKENS = 131_072

#: Forms that a server takes: none but in words, OpenAI's `response_format`, SGLang's fields beside that,
#: llama.cpp's `grammar` beside that, or vLLM's `structured_outputs`.
Forms = Literal["words", "response_format", "sglang", "llamacpp", "structured_outputs"]


@dataclass(frozen=True)
class Kind:
    """A kind of server. `keeps_forms`: what it takes as a form it keeps to, token by token.

    `off` holds other values than ours that switch a field off; `beside` is sent with every request;
    `go_on` is what makes it go on from the assistant's own last message, None if it cannot; `echoes` says
    that it says that message again.
    """

    name: str
    names: Mapping[str, str]
    has_choices: bool = True
    forms: Forms = "response_format"
    keeps_forms: bool = False
    most_stops: int = 4
    seed_bits: int = 63
    off: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Any] = field(default_factory=dict)
    go_on: Mapping[str, Any] | None = None
    echoes: bool = False

    @property
    def cannot_sample(self) -> tuple[str, ...]:
        """The fields of Sampling that have to keep their defaults."""
        return untold(self.names.keys())

    def native_form(self, form: AnswerForm) -> dict[str, Any] | None:
        """Return the fields with which to ask for the form, None if only words can."""
        if isinstance(form, ChooseRows):
            schema = rows_schema(form)
            form = JsonSchema(json.dumps(schema, ensure_ascii=False))
            if len(form.schema.encode()) > ROWS_SCHEMA_BYTES:
                return None
        if self.forms == "structured_outputs":
            return _structured_outputs(form)
        match form:
            case JsonSchema(schema=text) if self.forms != "words":
                named = {"name": "answer", "schema": json.loads(text)}
                return {"response_format": {"type": "json_schema", "json_schema": named}}
            case JsonObject() if self.forms != "words":
                return {"response_format": {"type": "json_object"}}
            case Regex(pattern) if self.forms == "sglang":
                return {"regex": pattern}
            case Ebnf(grammar) if self.forms == "llamacpp":
                return {"grammar": grammar}
            case Choices(texts) if self.forms == "llamacpp":
                spelled = " | ".join(json.dumps(text, ensure_ascii=False) for text in texts)
                return {"grammar": f"root ::= {spelled}"}
        return None


def rows_schema(form: ChooseRows) -> dict[str, Any]:
    """Return a JSON schema of the choice, all but that no value comes twice."""
    most = min(form.at_most, len(form.values))
    names = [str(number) for number in range(1, most + 1)]
    must = form.values and not form.none_allowed
    return {
        "type": "object",
        "properties": {name: {"type": "string", "enum": list(form.values)} for name in names},
        "required": names[:1] if must else [],
        "additionalProperties": False,
    }


def _structured_outputs(form: AnswerForm) -> dict[str, Any] | None:
    match form:
        case JsonSchema(schema=text):
            wanted: dict[str, Any] = {"json": json.loads(text)}
        case JsonObject():
            wanted = {"json_object": True}
        case Regex(pattern):
            wanted = {"regex": pattern}
        case Choices(texts):
            wanted = {"choice": list(texts)}
        case Ebnf(grammar):
            wanted = {"grammar": grammar}
        case _:
            return None
    return {"structured_outputs": wanted}


#: Kinds by what they say of themselves: `owned_by` in the list of their models.
KINDS = {
    "lectern": Kind("lectern", EXTENDED, forms="structured_outputs", keeps_forms=True, most_stops=16),
    "vllm": Kind(
        "vllm",
        EXTENDED,
        forms="structured_outputs",
        keeps_forms=True,
        most_stops=16,
        go_on={"add_generation_prompt": False, "continue_final_message": True},
    ),
    "sglang": Kind(
        "sglang",
        EXTENDED,
        forms="sglang",
        keeps_forms=True,
        most_stops=16,
        off={"top_k": -1},
        go_on={"continue_final_message": True},
    ),
    "llamacpp": Kind(
        "llamacpp",
        {
            **{name: theirs for name, theirs in EXTENDED.items() if name != "min_tokens"},
            "repetition_penalty": "repeat_penalty",
        },
        has_choices=False,  # it makes no more than it has slots
        forms="llamacpp",
        keeps_forms=True,
        most_stops=16,
        seed_bits=31,
        beside={"repeat_last_n": LLAMA_PENALTY_TOKENS},
        go_on={},
        echoes=True,
    ),
    "library": Kind("ollama", COMMON, has_choices=False, most_stops=16, seed_bits=31),
}

#: Any other server: what OpenAI's own API has.
PLAIN = Kind("openai", {**COMMON, "logit_bias": "logit_bias"})

#: OpenAI's own servers have newer names, which many compatible ones do not know.
OPENAI = Kind("openai", {**PLAIN.names, "max_tokens": "max_completion_tokens"})
OPENAI_OWNERS = frozenset({"openai", "system", "openai-internal"})


def kind_of(owned_by: str) -> Kind:
    """Return the kind of a server whose models say that they are owned by this."""
    return OPENAI if owned_by in OPENAI_OWNERS else KINDS.get(owned_by, PLAIN)
