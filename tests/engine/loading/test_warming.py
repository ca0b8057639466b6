import logging

from contract import JsonObject
from engine.loading.warming import warm
from grammar import Vocabulary, compile_grammar
from grammar.language import _token_trie
from tests.engine.parts import VOCABULARY


def test_the_vocabulary_is_arranged_once_and_before_the_first_answer_in_json():
    vocabulary = Vocabulary(VOCABULARY.tokens, lambda text: list(text.encode()))
    arranged = _token_trie.cache_info().misses
    warm(vocabulary)
    assert _token_trie.cache_info().misses == arranged + 1
    compile_grammar(JsonObject(), vocabulary)
    assert _token_trie.cache_info().misses == arranged + 1


def test_a_vocabulary_that_cannot_spell_json_is_a_line_in_the_log(caplog):
    with caplog.at_level(logging.INFO):
        warm(Vocabulary(VOCABULARY.tokens[1:], lambda text: []))
    assert "the vocabulary has no token for the byte 0x00" in caplog.text
