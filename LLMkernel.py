"""What each task does, given a model: one generator of events per kind of task.

`chat` hands the conversation to the model, without its oldest turns if those may go and do not fit. A
template task reads rows, shows them to the model with the reader's wish, lets it choose among them and
nothing else, and answers with the rows that were chosen.
"""

import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import closing
from itertools import takewhile

from msgspec import ValidationError, convert
from msgspec.structs import replace

from contract import (
    GREEDY,
    CannotDo,
    Chat,
    ChatMessage,
    ChooseRows,
    Completion,
    Event,
    Finished,
    FoundRow,
    InvalidRequest,
    Model,
    OutputInvalid,
    PredictOption,
    PromptTooLong,
    RowsAnswer,
    RowsChanged,
    Sampling,
    Task,
    Token,
    Tokenize,
    TokensAnswer,
    Trimmed,
    UnknownTask,
    Wish,
)
from grammar import last_option
from records import Database
from templates import Answer, TemplateTask

#: The part of the room for prompt and answer that old turns leave to the answer: a quarter, so that an
#: answer is not cut off after a few words because the conversation has grown long.
ANSWER_SHARE = 4

#: How `chat_stream` chooses tokens unless it is told otherwise.
USUAL = Sampling()

#: The token ids, by choice, of an answer that a lost worker has begun.
Said = Sequence[Sequence[int]]

#: How many tokens a conversation takes as a prompt.
CountTokens = Callable[[Sequence[ChatMessage]], int]


def perform(
    task: Task, model: Model, templates: Mapping[str, TemplateTask], database: Database
) -> Generator[Event, None, None]:
    """Do the task: yield its tokens as they come and, last, Finished.

    Raises a ServingError if the task cannot be done. Closing the generator stops the model's work.
    """
    match task.name, task.input:
        case "chat", Chat() as conversation:
            yield from chat(model, conversation, task.sampling, task.said)
        case "tokenize", Tokenize(text):
            yield Finished(answer=TokensAnswer(model.split_tokens(text)))
        case name, Wish(wish) if name in templates:
            yield from find_rows(model, templates[name], wish, database, task.sampling.seed, task.said)
        case "chat", _:
            raise InvalidRequest("input: the task chat takes messages, not a wish")
        case "tokenize", _:
            raise InvalidRequest("input: the task tokenize takes a text, not messages or a wish")
        case name, _ if name in templates:
            raise InvalidRequest(f"input: the task {name} takes a wish, not messages")
        case name, _:
            known = ["chat", "tokenize", *templates]
            raise UnknownTask(f"task: there is none named {name!r}, only {', '.join(known)}")


def chat(
    model: Model, conversation: Chat, sampling: Sampling, said: Said = ()
) -> Generator[Event, None, None]:
    """Answer with the assistant's next turn, or with the rest of it if it has begun."""
    messages, form = conversation.messages, conversation.form
    if form is not None and not model.card.capabilities.constraints:
        raise CannotDo(f"form: the model {model.card.name} cannot keep its answer to a form")
    if conversation.drops_history or conversation.total_tokens is not None:
        messages, room_tokens = fit(conversation, model.count_tokens, model.card.context_tokens)
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens or room_tokens, room_tokens))
    if left_out := len(conversation.messages) - len(messages):
        yield Trimmed(left_out)
    begins_turn = messages[-1].role != "assistant"
    change = _LeadingSpace().leave_out if form is None and begins_turn else None
    generation = model.generate(messages, sampling, form, said)
    if isinstance(form, PredictOption):
        generation = _option_alone(generation, form.options)
    _, completion = yield from _passed_on(generation, change)
    yield Finished(completion.reasons, completion.usage, completion.timings)


def chat_stream(
    model: Model,
    input: str,  # noqa: A002 (the name that those who come from sophon-demo know)
    history: Sequence[Mapping[str, str]] = (),
    sampling: Sampling = USUAL,
) -> Generator[str, None, None]:
    """Yield the pieces of the answer to `input`, for any number of callers at once.

    `history` holds the turns before it, `{"role": "user" | "assistant" | "system", "content": "…"}` each;
    its oldest are left out until all fits. Raises InvalidRequest if it is of another form, PromptTooLong
    if `input` alone does not fit. Closing the generator stops the model's work.
    """
    if sampling.choices != 1:
        raise InvalidRequest(f"choices: a stream of text holds one answer, not {sampling.choices}")
    try:
        messages = convert([*history, {"role": "user", "content": input}], tuple[ChatMessage, ...])
    except ValidationError as error:
        raise InvalidRequest(f"history, and input after it: {error}") from error
    with closing(chat(model, Chat(messages, drops_history=True), sampling)) as events:
        for event in events:
            if isinstance(event, Token) and event.text:
                yield event.text


def fit(
    conversation: Chat, count_tokens: CountTokens, context_tokens: int
) -> tuple[tuple[ChatMessage, ...], int]:
    """Return the messages to show to the model, and how many tokens they leave for the answer.

    Raises PromptTooLong if not even a token is left.
    """
    messages = conversation.messages
    limit = min(conversation.total_tokens or context_tokens, context_tokens)
    if conversation.drops_history:
        messages = trim(messages, count_tokens, limit - limit // ANSWER_SHARE)
    prompt_tokens = count_tokens(messages)
    if prompt_tokens >= limit:
        raise PromptTooLong(
            f"the prompt has {prompt_tokens} tokens; with room for an answer, at most {limit - 1} fit"
        )
    return messages, limit - prompt_tokens


def trim(
    messages: tuple[ChatMessage, ...], count_tokens: CountTokens, limit_tokens: int
) -> tuple[ChatMessage, ...]:
    """Leave out as few of the oldest turns as it takes to fit, each a question and what answered it.

    The last question stays even if it does not fit, and so do system messages before the first.
    """
    head = tuple(takewhile(lambda message: message.role == "system", messages))
    asked = [place for place, message in enumerate(messages) if message.role == "user"]
    starts = [len(head), *asked[1:]]

    def fits_from(start: int) -> bool:
        return count_tokens(head + messages[start:]) <= limit_tokens

    first = starts[bisect_left(starts, True, hi=len(starts) - 1, key=fits_from)]
    return head + messages[first:]


def find_rows(
    model: Model,
    template: TemplateTask,
    wish: str,
    database: Database,
    seed: int | None = None,
    said: Said = (),
) -> Generator[Event, None, None]:
    """Answer with those rows of the template's query that the model chooses for the wish."""
    if not model.card.capabilities.constraints:
        raise CannotDo(
            f"task: {template.name} needs a constraint, which the model {model.card.name} cannot keep"
        )
    source, answer = template.source, template.answer
    considered = database.snapshot(source.query, source.key).having(answer.field)
    offered = considered.by_text(answer.field)
    if not offered:
        yield Token(0, (), "{}")
        yield Finished(answer=RowsAnswer((), 0))
        return
    prompt = ChatMessage("user", template.render(considered.rows, wish))
    constraint = ChooseRows(tuple(offered), answer.at_most, answer.none_allowed)
    generation = model.generate([prompt], replace(GREEDY, seed=seed), constraint, said)
    text, completion = yield from _passed_on(generation)
    rows = tuple(row for value in chosen_values(text, offered, answer) for row in offered[value])
    _see_that_rows_stand(rows, template, database)
    found = RowsAnswer(rows, len(considered.rows))
    yield Finished(completion.reasons, completion.usage, completion.timings, found)


def chosen_values(text: str, offered: Collection[str], answer: Answer) -> list[str]:
    """Read an answer; raises OutputInvalid unless it is what ChooseRows promises, to the letter."""
    try:
        pairs = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise OutputInvalid("the answer is not JSON, or was cut off") from error
    if not isinstance(pairs, tuple):
        raise OutputInvalid("the answer is not a JSON object")
    values = [value for _, value in pairs]
    if [number for number, _ in pairs] != [str(place) for place in range(1, len(pairs) + 1)]:
        raise OutputInvalid('the answer does not number its values "1", "2", …')
    if not all(isinstance(value, str) and value in offered for value in values):
        raise OutputInvalid("the answer holds a value that no row has")
    if len(set(values)) < len(values):
        raise OutputInvalid("the answer holds a value twice")
    if len(values) > answer.at_most:
        raise OutputInvalid(f"the answer holds {len(values)} values, more than {answer.at_most}")
    if not values and not answer.none_allowed:
        raise OutputInvalid("the answer is empty, but the task must choose")
    return values


class _LeadingSpace:
    """The line break with which some models (GLM-4, ChatGLM3) begin every turn."""

    def __init__(self) -> None:
        self._begun: set[int] = set()

    def leave_out(self, token: Token) -> Token:
        """Return the token without white space before its choice's first word."""
        if token.choice in self._begun or not token.text:
            return token
        text = token.text.lstrip()
        if text:
            self._begun.add(token.choice)
        return replace(token, text=text)


def _option_alone(
    generation: Generator[Token, None, Completion], options: Sequence[str]
) -> Generator[Token, None, Completion]:
    """Pass the tokens on without what they say, and then the option that each choice came down to."""
    texts: defaultdict[int, str] = defaultdict(str)
    counts: Counter[int] = Counter()
    with closing(generation):
        while True:
            try:
                token = next(generation)
            except StopIteration as end:
                completion: Completion = end.value
                break
            texts[token.choice] += token.text
            counts[token.choice] += len(token.ids)
            yield replace(token, text="")
    for choice, reason in enumerate(completion.reasons):
        option = last_option(texts[choice], options) if reason == "stop" else None
        if option is None:
            raise OutputInvalid("the answer was cut off before it came to one of the options")
        yield Token(counts[choice], (), option, choice)
    return completion


def _passed_on(
    generation: Generator[Token, None, Completion], change: Callable[[Token], Token] | None = None
) -> Generator[Token, None, tuple[str, Completion]]:
    """Pass a generation's tokens on, changed; return their whole text with how it ended."""
    texts: list[str] = []
    with closing(generation):
        while True:
            try:
                token = next(generation)
            except StopIteration as end:
                return "".join(texts), end.value
            if change is not None:
                token = change(token)
            texts.append(token.text)
            yield token


def _see_that_rows_stand(rows: Sequence[FoundRow], template: TemplateTask, database: Database) -> None:
    """Look the chosen rows up again: what is answered must hold when it is answered."""
    if not rows:
        return
    now = database.snapshot(template.source.query, template.source.key)
    if not all(now.holds(row, template.answer.field) for row in rows):
        raise RowsChanged("the rows changed while the answer was made; ask again")
