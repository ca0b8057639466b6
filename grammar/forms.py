"""From the form that an answer shall have to a grammar for one vocabulary."""

from contract import AnswerForm, Choices, ChooseRows, Ebnf, JsonObject, JsonSchema, PredictOption, Regex
from grammar.constraint import CompiledGrammar
from grammar.ebnf import notation_of_ebnf
from grammar.json_schema import notation_of_schema
from grammar.language import LanguageGrammar
from grammar.options import OptionGrammar
from grammar.pattern import literal, notation_of_regex
from grammar.rows import RowsGrammar
from grammar.vocabulary import Vocabulary

#: The longest schema, pattern, grammar or list of choices, in UTF-8 bytes: a schema with a thousand
#: properties has room; compiling so much takes a fraction of a second.
FORM_BYTES = 128 * 1024


def compile_grammar(form: AnswerForm, vocabulary: Vocabulary) -> CompiledGrammar:
    """Make the form ready for a vocabulary.

    Raises ValueError, which says what of the form is wrong or not supported; nothing in it is ignored.
    """
    if isinstance(form, ChooseRows):
        return RowsGrammar(form, vocabulary)
    if isinstance(form, PredictOption):
        return OptionGrammar(form, vocabulary)
    return LanguageGrammar(_notation(form), vocabulary)


def _notation(form: JsonSchema | JsonObject | Regex | Ebnf | Choices) -> str:
    match form:
        case JsonSchema(schema):
            _see_that_it_is_short("schema", schema)
            return notation_of_schema(schema)
        case JsonObject():
            return notation_of_schema('{"type": "object"}')
        case Regex(pattern):
            _see_that_it_is_short("pattern", pattern)
            return notation_of_regex(pattern)
        case Ebnf(grammar):
            _see_that_it_is_short("grammar", grammar)
            return notation_of_ebnf(grammar)
        case Choices(texts):
            _see_that_it_is_short("choices", "".join(texts))
            return _notation_of_choices(texts)


def _notation_of_choices(texts: tuple[str, ...]) -> str:
    if not texts:
        raise ValueError("choices: there must be at least one")
    if not all(texts):
        raise ValueError("choices: one of them is empty")
    return notation_of_regex("|".join(literal(text) for text in dict.fromkeys(texts)))


def _see_that_it_is_short(what: str, text: str) -> None:
    size = len(text.encode())
    if size > FORM_BYTES:
        raise ValueError(f"{what}: {size} bytes are more than the {FORM_BYTES} allowed")
