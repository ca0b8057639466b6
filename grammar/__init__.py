"""What an answer may say: a description of its form becomes, token by token, a choice of allowed tokens."""

from grammar.constraint import Constraint
from grammar.rows import RowsConstraint, RowsGrammar
from grammar.vocabulary import Vocabulary

__all__ = ["Constraint", "RowsConstraint", "RowsGrammar", "Vocabulary"]
