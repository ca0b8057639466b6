"""The form of an answer in OpenAI's chat API, and as vLLM's extension `structured_outputs` spells it."""

from typing import Annotated, Any, get_args

from msgspec import Meta, Struct

from contract import AnswerForm, Choices, Ebnf, InvalidRequest, JsonObject, JsonSchema, Regex
from gateway.dialects.conversation import as_schema_text


class TextFormat(Struct, frozen=True, tag="text", forbid_unknown_fields=True):
    """No form at all."""


class JsonObjectFormat(Struct, frozen=True, tag="json_object", forbid_unknown_fields=True):
    """Any JSON object."""


class NamedSchema(Struct, frozen=True, forbid_unknown_fields=True):
    """A schema; always kept to the letter, strict or not. The rest are labels."""

    name: str
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class SchemaFormat(Struct, frozen=True, tag="json_schema", forbid_unknown_fields=True):
    """A JSON text that is valid under the schema."""

    json_schema: NamedSchema


class StructuredOutputs(Struct, frozen=True, forbid_unknown_fields=True):
    """vLLM's forms of answers, one at a time."""

    json: dict[str, Any] | str | None = None
    regex: str | None = None
    choice: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None
    grammar: str | None = None
    json_object: bool | None = None


ResponseFormat = TextFormat | JsonObjectFormat | SchemaFormat

#: What `response_format` may have as its `type`.
FORMAT_TYPES = tuple(str(form.__struct_config__.tag) for form in get_args(ResponseFormat))


def answer_form(
    response_format: ResponseFormat | None, structured_outputs: StructuredOutputs | None
) -> AnswerForm | None:
    """Return the one form that is asked for, if any. Raises InvalidRequest if there are several."""
    form = _form_of_format(response_format)
    if structured_outputs is None:
        return form
    if form is not None:
        raise InvalidRequest("structured_outputs: cannot be combined with response_format")
    forms = _forms_of(structured_outputs)
    if len(forms) != 1:
        names = ", ".join(StructuredOutputs.__struct_fields__)
        raise InvalidRequest(f"structured_outputs: must hold one of {names}, got {len(forms)}")
    return forms[0]


def _form_of_format(response_format: ResponseFormat | None) -> AnswerForm | None:
    match response_format:
        case None | TextFormat():
            return None
        case JsonObjectFormat():
            return JsonObject()
        case SchemaFormat(NamedSchema(schema=schema)):
            return JsonSchema(as_schema_text(schema))


def _forms_of(wanted: StructuredOutputs) -> list[AnswerForm]:
    forms: list[AnswerForm] = []
    if wanted.json is not None:
        forms.append(JsonSchema(as_schema_text(wanted.json)))
    if wanted.regex is not None:
        forms.append(Regex(wanted.regex))
    if wanted.choice is not None:
        forms.append(Choices(wanted.choice))
    if wanted.grammar is not None:
        forms.append(Ebnf(wanted.grammar))
    if wanted.json_object:
        forms.append(JsonObject())
    return forms
