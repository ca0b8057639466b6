"""What each task does, given a model: one generator of events per kind of task.

`chat` hands the conversation to the model. A template task reads rows, shows them to the model with the
reader's wish, lets it choose among them and nothing else, and answers with the rows that were chosen.
"""

import json
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import closing

from msgspec.structs import replace

from contract import (
    GREEDY,
    AnswerForm,
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
    RowsAnswer,
    RowsChanged,
    Sampling,
    Task,
    Token,
    UnknownTask,
    Wish,
)
from records import Database
from templates import Answer, TemplateTask


def perform(
    task: Task, model: Model, templates: Mapping[str, TemplateTask], database: Database
) -> Generator[Event, None, None]:
    """Do the task: yield its tokens as they come and, last, Finished.

    Raises a ServingError if the task cannot be done. Closing the generator stops the model's work.
    """
    match task.name, task.input:
        case "chat", Chat(messages, form):
            yield from chat(model, messages, task.sampling, form)
        case name, Wish(wish) if name in templates:
            yield from find_rows(model, templates[name], wish, database, task.sampling.seed)
        case "chat", _:
            raise InvalidRequest("input: the task chat takes messages, not a wish")
        case name, _ if name in templates:
            raise InvalidRequest(f"input: the task {name} takes a wish, not messages")
        case name, _:
            raise UnknownTask(f"task: there is none named {name!r}, only {', '.join(['chat', *templates])}")


def chat(
    model: Model, messages: Sequence[ChatMessage], sampling: Sampling, form: AnswerForm | None = None
) -> Generator[Event, None, None]:
    """Answer with the assistant's next turn, in that form if there is one."""
    if form is not None and not model.card.capabilities.constraints:
        raise CannotDo(f"form: the model {model.card.name} cannot keep its answer to a form")
    change = _LeadingSpace().leave_out if form is None else None
    _, completion = yield from _passed_on(model.generate(messages, sampling, form), change)
    yield Finished(completion.reasons, completion.usage, completion.timings)


def find_rows(
    model: Model, template: TemplateTask, wish: str, database: Database, seed: int | None = None
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
    generation = model.generate([prompt], replace(GREEDY, seed=seed), constraint)
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
