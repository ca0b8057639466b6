"""Arranging a vocabulary for answers in JSON before the first of them is asked for."""

import logging

from contract import JsonObject
from grammar import Vocabulary, compile_grammar

logger = logging.getLogger(__name__)


def warm(vocabulary: Vocabulary) -> None:
    """Do what the first answer in JSON would else wait for: half a second.

    It runs well beside the reading of weights, most of which leaves Python's lock alone.
    """
    try:
        compile_grammar(JsonObject(), vocabulary)
    except ValueError as error:
        logger.info("Answers in JSON are not possible with this vocabulary: %s", error)
