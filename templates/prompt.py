"""Prompts: Jinja texts in a sandbox that put the rows first and the wish last."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, Undefined, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from contract import Scalar

Columns = Mapping[str, Scalar]

#: What a prompt is given, and has to use.
PROMPT_VARIABLES = frozenset({"rows", "wish"})

#: What rendering may raise when a prompt does not fit its rows.
RENDER_ERRORS = (TemplateError, ArithmeticError, LookupError, TypeError, ValueError)


class PromptError(Exception):
    """A prompt that cannot work; the message says why, with the line where one is known."""


class _PromptEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox in which prompts run: the same rows and wish always give the same text."""

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=False
        )
        self.filters["tojson"] = _to_json
        del self.filters["random"], self.globals["lipsum"]

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Prefer a column over a method of the same name: `row.items` is the column `items`."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


class _SampleRow(dict[str, Scalar]):
    """A row for trying a prompt out: each column anyone asks for is there and holds text."""

    def __missing__(self, column: str) -> str:
        return f"{column} of a row"


def _to_json(value: Any) -> str:
    if isinstance(value, Undefined):
        str(value)  # raises UndefinedError, which names the column
    return json.dumps(value, ensure_ascii=False)


def compile_prompt(text: str) -> Template:
    """Compile a prompt; raises PromptError if it is broken or would not work as a prompt."""
    environment = _PromptEnvironment()
    try:
        used = meta.find_undeclared_variables(environment.parse(text)) - environment.globals.keys()
        template = environment.from_string(text)
    except TemplateSyntaxError as error:
        raise PromptError(f"line {error.lineno}: {error.message}") from error
    except TemplateError as error:
        raise PromptError(str(error)) from error
    if unknown := sorted(used - PROMPT_VARIABLES):
        raise PromptError(f"uses the unknown variable {unknown[0]!r}; a prompt knows rows and wish")
    if missing := sorted(PROMPT_VARIABLES - used):
        raise PromptError(f"never uses {missing[0]!r}")
    _check_order(template)
    return template


def render_prompt(template: Template, rows: Sequence[Columns], wish: str) -> str:
    """Fill in the rows and the wish; raises one of RENDER_ERRORS if the prompt does not fit the rows."""
    return template.render(rows=rows, wish=wish)


def _check_order(template: Template) -> None:
    """See to it that prompts for two wishes share all that comes from the rows, as a cached prefix does."""
    try:
        few_rows = _split_at_wish(template, [_SampleRow()])
        more_rows = _split_at_wish(template, [_SampleRow(), _SampleRow()])
    except RENDER_ERRORS as error:
        raise PromptError(
            f"cannot be rendered with sample rows, whose columns all hold text: {error}"
            " (filters such as `float` turn text into numbers)"
        ) from error
    if not few_rows[1]:
        raise PromptError("never shows the wish")
    if few_rows[0] == more_rows[0] or few_rows[1] != more_rows[1]:
        raise PromptError("must hold the rows first and the wish last, so that the rows' part can be cached")


def _split_at_wish(template: Template, rows: Sequence[Columns]) -> tuple[str, str]:
    """Return what two different wishes leave equal before them, and the rest with one of them."""
    text = render_prompt(template, rows, "something new")
    other = render_prompt(template, rows, "anything else")
    pairs = enumerate(zip(text, other, strict=False))
    shared = next((place for place, (one, two) in pairs if one != two), len(text))
    return text[:shared], text[shared:]
