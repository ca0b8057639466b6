"""The one thing a task may know about a model."""

from collections.abc import Generator, Sequence
from typing import Protocol

from msgspec import Struct

from contract.event import StopReason, Timings, Token, Usage
from contract.task import ChatMessage, Sampling


class Capabilities(Struct, frozen=True):
    """What a model can be asked for; a gateway never sends it anything else."""

    constraints: bool = True


class ModelCard(Struct, frozen=True):
    """How a model introduces itself.

    `fingerprint` is equal for equal weights and tokenizer; `context_tokens` bounds prompt plus answer.
    """

    name: str
    fingerprint: str
    context_tokens: int
    capabilities: Capabilities = Capabilities()


class ChooseRows(Struct, frozen=True, tag="rows"):
    """Answer with a JSON object "1", "2", … → distinct values, or with {}.

    At most `at_most` of the values, each character for character; {} only if `none_allowed` (or if
    there are no values).
    """

    values: tuple[str, ...]
    at_most: int
    none_allowed: bool = True


class JsonSchema(Struct, frozen=True, tag="json_schema"):
    """Answer with a JSON text that is valid under the schema, which is JSON text itself (draft 2020-12)."""

    schema: str


class JsonObject(Struct, frozen=True, tag="json_object"):
    """Answer with any JSON object."""


class Regex(Struct, frozen=True, tag="regex"):
    """Answer with a text that the whole pattern matches; \\d, \\w and \\s mean ASCII."""

    pattern: str


class Ebnf(Struct, frozen=True, tag="ebnf"):
    """Answer with a text of the grammar's rule `root`; the form is that of docs/answer_forms.md."""

    grammar: str


class Choices(Struct, frozen=True, tag="choices"):
    """Answer with one of the texts, character for character."""

    texts: tuple[str, ...]


#: What an answer may be asked to look like, down to its last character.
AnswerForm = ChooseRows | JsonSchema | JsonObject | Regex | Ebnf | Choices


class Completion(Struct, frozen=True):
    """How a generation ended."""

    reason: StopReason
    usage: Usage
    timings: Timings


class Model(Protocol):
    """A loaded model, wherever it runs: engine on GPU or CPU, TPU, HTTP upstream, script."""

    @property
    def card(self) -> ModelCard: ...

    def generate(
        self, messages: Sequence[ChatMessage], sampling: Sampling, constraint: AnswerForm | None = None
    ) -> Generator[Token, None, Completion]:
        """Yield the assistant's next turn as it is made and return how it ended.

        Safe to call from many threads at once. Closing the generator stops the work within one
        step; while nothing comes, an empty token is yielded several times a second, so that a
        caller who wants to stop is never kept waiting. Raises PromptTooLong, CannotDo or a
        CapacityError, before the first token if at all possible.
        """
        ...
