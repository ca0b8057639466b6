import pytest

from contract import Token, TokenLogprob
from gateway.turn import Turn, join_turns


def test_tokens_that_come_mixed_are_joined_by_choice():
    logprobs = [TokenLogprob(number, b"x", -1.0) for number in range(3)]
    tokens = [
        Token(0, (1,), "a", 1, (logprobs[0],)),
        Token(0, (1,), "b", 0),
        Token(1, (1, 2), "c", 1, (logprobs[1], logprobs[2])),
        Token(3, (), "d", 1),
    ]
    assert join_turns(tokens, 3) == (Turn("b"), Turn("acd", tuple(logprobs)), Turn(""))


def test_a_choice_that_nobody_asked_for_is_a_mistake_of_ours():
    with pytest.raises(IndexError):
        join_turns([Token(0, (1,), "a", 1)], 1)
