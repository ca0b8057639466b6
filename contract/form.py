"""What an answer may be asked to look like, down to its last character."""

from msgspec import Struct


class ChooseRows(Struct, frozen=True, tag="rows"):
    """Answer with a JSON object "1", "2", … → distinct values, or with {}.

    At most `at_most` of the values, each character for character; {} only if `none_allowed` (or if
    there are no values).
    """

    values: tuple[str, ...]
    at_most: int
    none_allowed: bool = True


class JsonSchema(Struct, frozen=True, tag="json_schema", forbid_unknown_fields=True):
    """Answer with a JSON text that is valid under the schema, which is JSON text itself (draft 2020-12)."""

    schema: str


class JsonObject(Struct, frozen=True, tag="json_object", forbid_unknown_fields=True):
    """Answer with any JSON object."""


class Regex(Struct, frozen=True, tag="regex", forbid_unknown_fields=True):
    """Answer with a text that the whole pattern matches; \\d, \\w and \\s mean ASCII."""

    pattern: str


class Ebnf(Struct, frozen=True, tag="ebnf", forbid_unknown_fields=True):
    """Answer with a text of the grammar's rule `root`; the form is that of docs/answer_forms.md."""

    grammar: str


class Choices(Struct, frozen=True, tag="choices", forbid_unknown_fields=True):
    """Answer with one of the texts, character for character."""

    texts: tuple[str, ...]


class PredictOption(Struct, frozen=True, tag="option"):
    """Answer with the option (a letter, say) to which the model gives the highest probability where its
    answer's letter stands; docs/answer_forms.md tells where that is.

    The model is free to write a few words before it; the answer is the option alone.
    """

    options: tuple[str, ...]


#: What an answer may be asked to look like, down to its last character.
AnswerForm = ChooseRows | JsonSchema | JsonObject | Regex | Ebnf | Choices | PredictOption
