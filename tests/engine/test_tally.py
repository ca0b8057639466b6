"""A tally counts what came since the last time, and comes out as if it had counted everything."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tally import FIRST_ROOM, Tally
from tests.properties import examples

TOKENS = st.lists(st.integers(0, 200), max_size=300)


def counted(tally):
    return dict(zip(tally.ids.tolist(), tally.times.tolist(), strict=True))


def direct(prompt, answer):
    return {token: Counter(answer)[token] for token in [*prompt, *answer]}


@examples(60)
@given(prompt=TOKENS, answer=TOKENS, stops=st.lists(st.integers(0, 300), max_size=6))
def test_a_tally_does_not_depend_on_when_it_was_asked(prompt, answer, stops):
    tally, tokens = Tally(), [*prompt, *answer]
    for stop in sorted(stops):
        tally.update(tokens[: len(prompt) + stop], len(prompt))
        assert counted(tally) == direct(prompt, answer[:stop])
    tally.update(tokens, len(prompt))
    tally.update(tokens, len(prompt))
    assert counted(tally) == direct(prompt, answer)
    assert tally.ids.tolist() == list(dict.fromkeys(tokens))


def test_a_new_tally_knows_nothing():
    assert counted(Tally()) == {}


@pytest.mark.parametrize("distinct", [FIRST_ROOM - 1, FIRST_ROOM, FIRST_ROOM + 1, 10 * FIRST_ROOM])
def test_room_is_made_for_any_number_of_tokens(distinct):
    at_once, one_by_one = Tally(), Tally()
    at_once.update(range(distinct), distinct)
    for length in range(distinct + 1):
        one_by_one.update(range(length), 0)
    assert counted(at_once) == dict.fromkeys(range(distinct), 0)
    assert counted(one_by_one) == dict.fromkeys(range(distinct), 1)


class WatchedTokens(list):
    """Remembers how many tokens were read."""

    read = 0

    def __getitem__(self, places):
        found = super().__getitem__(places)
        self.read += len(found)
        return found


def test_a_step_reads_its_own_token_only():
    tokens = WatchedTokens(range(5000))
    tally = Tally()
    tally.update(tokens, 4000)
    for step in range(10):
        tokens.append(step)
        tokens.read = 0
        tally.update(tokens, 4000)
        assert tokens.read == 1
