"""What a caller wants done."""

from typing import Annotated, Literal
from uuid import uuid4

from msgspec import Meta, Struct, field

from contract.form import AnswerForm

#: The longest answer a caller may ask for, in tokens: above any model's context served today.
MAX_TOKENS_LIMIT = 1_048_576

#: Most answers to one conversation at once, and most alternatives told beside each token (OpenAI's bounds).
MAX_CHOICES = 128
MAX_TOP_LOGPROBS = 20

#: Seeds are 63 bit, so that JSON, msgpack and numpy all hold them exactly.
MAX_SEED = 2**63 - 1

Role = Literal["system", "user", "assistant"]


def new_task_id() -> str:
    """Return 32 random hexadecimal digits."""
    return uuid4().hex


class ChatMessage(Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: Role
    content: str


class Sampling(Struct, frozen=True, forbid_unknown_fields=True):
    """How the next token is chosen.

    Temperature 0 takes the most probable token. `top_k` 0, `top_p` 1 and `min_p` 0 switch those
    filters off; penalties count over prompt and answer as OpenAI's and Hugging Face's do: presence
    and frequency over the answer, repetition over both. `logit_bias` is added to the logits of the
    token ids that it names. `max_tokens` None means up to the end of the context; before `min_tokens`,
    and at all with `ignore_end`, no end of the answer is chosen. `seed` None means that the gateway
    draws one. `choices` answers are made side by side. `logprobs` asks for the log probability of
    each token and of so many of the most probable ones; None asks for none.
    """

    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.7
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] = 1.0
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    logit_bias: dict[Annotated[int, Meta(ge=0)], Annotated[float, Meta(ge=-100, le=100)]] = {}
    min_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS_LIMIT)] = 0
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS_LIMIT)] | None = None
    stop: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...], Meta(max_length=16)] = ()
    ignore_end: bool = False
    seed: Annotated[int, Meta(ge=0, le=MAX_SEED)] | None = None
    choices: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] = 1
    logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None


#: What every template task uses: the most probable row at every choice.
GREEDY = Sampling(temperature=0.0)


class Chat(Struct, frozen=True, tag="chat"):
    """Input of a chat: the conversation so far; the answer is the assistant's next turn, in that form.

    If the last message is the assistant's own, the answer goes on from its text, which is not said
    again. With `drops_history` the oldest turns may be left out, a question together with its answer,
    until the prompt fits. `total_tokens` bounds prompt plus answer; more than the model's context means
    the context.
    """

    messages: tuple[ChatMessage, ...]
    form: AnswerForm | None = None
    drops_history: bool = False
    total_tokens: Annotated[int, Meta(ge=1)] | None = None


class Wish(Struct, frozen=True, tag="wish"):
    """Input of a template task: what the person looks for, in their own words."""

    wish: str


class Tokenize(Struct, frozen=True, tag="tokenize"):
    """Input of the task that splits a text into the model's tokens."""

    text: str


class Task(Struct, frozen=True):
    """One piece of work: which task, on which model, with which input.

    `model` None means whichever model is there. `caller` tells callers apart who may interrupt their own
    tasks: equal for the same caller, and never a key or an address itself. `said` are the token ids, by
    choice, of an answer that a lost worker has begun: they are said again, and it goes on behind them.
    """

    name: str
    input: Chat | Wish | Tokenize
    sampling: Sampling = Sampling()
    model: str | None = None
    task_id: str = field(default_factory=new_task_id)
    caller: str | None = None
    said: tuple[tuple[int, ...], ...] = ()
