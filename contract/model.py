"""The one thing a task may know about a model."""

from collections.abc import Generator, Sequence
from typing import Protocol

from msgspec import Struct

from contract.event import StopReason, Timings, Token, Usage
from contract.form import AnswerForm
from contract.task import ChatMessage, Sampling


class Capabilities(Struct, frozen=True):
    """What a model can be asked for; asked for anything else it raises CannotDo, naming the parameter.

    `constraints`: it answers in a form. `goes_on`: it goes on from the assistant's own last message.
    `cannot_sample` names the fields of Sampling that must keep their defaults.
    """

    constraints: bool = True
    goes_on: bool = True
    cannot_sample: tuple[str, ...] = ()


class ModelCard(Struct, frozen=True):
    """How a model introduces itself.

    `fingerprint` is equal for equal weights and tokenizer; `context_tokens` bounds prompt plus answer.
    """

    name: str
    fingerprint: str
    context_tokens: int
    capabilities: Capabilities = Capabilities()


class Completion(Struct, frozen=True):
    """How a generation ended: one reason for each choice, and what all of them took together."""

    reasons: tuple[StopReason, ...]
    usage: Usage
    timings: Timings

    @property
    def reason(self) -> StopReason:
        """How the first choice ended, which mostly is the only one."""
        return self.reasons[0]


class Model(Protocol):
    """A loaded model, wherever it runs: engine on GPU or CPU, TPU, HTTP upstream, script."""

    @property
    def card(self) -> ModelCard: ...

    def generate(
        self,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        constraint: AnswerForm | None = None,
        said: Sequence[Sequence[int]] = (),
    ) -> Generator[Token, None, Completion]:
        """Yield the assistant's next turn as it is made and return how it ended.

        If the last message is the assistant's, its text is the beginning of that turn: the answer goes
        on from there, exactly, and does not say it again; `constraint` is about what is new.
        Where `sampling.choices` asks for several, their tokens come mixed, each naming its choice.
        With `said`, the ids of each choice that was begun on another worker, these come first and as
        they came there, without being chosen again; raises WorkerLost if they cannot have been said here.
        Safe to call from many threads at once. Closing the generator stops the work within one
        step; while nothing comes, an empty token is yielded several times a second, so that a
        caller who wants to stop is never kept waiting. Raises PromptTooLong, CannotDo or a
        CapacityError, before the first token if at all possible.
        """
        ...

    def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """Return how many tokens `generate` would make of the conversation, the template's included.

        A model that cannot know says rather too many than too few. Raises CannotDo if it cannot take
        this conversation.
        """
        ...

    def split_tokens(self, text: str) -> tuple[str, ...]:
        """Return the tokens that the model reads the text as, U+FFFD for what is no whole character.

        Raises CannotDo if it is not known.
        """
        ...

    def close(self) -> None:
        """Stop all work and let go of devices and connections; answers that still run end with an error.

        A process that ends without it may be aborted by a library whose thread is still computing.
        """
        ...
