"""What an answer may say: a description of its form becomes, token by token, a choice of allowed tokens."""

from grammar.constraint import Allowed, CompiledGrammar, Constraint
from grammar.forms import compile_grammar
from grammar.options import last_option
from grammar.rows import RowsConstraint, RowsGrammar
from grammar.vocabulary import Vocabulary

__all__ = [
    "Allowed",
    "CompiledGrammar",
    "Constraint",
    "RowsConstraint",
    "RowsGrammar",
    "Vocabulary",
    "compile_grammar",
    "last_option",
]
