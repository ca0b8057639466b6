from hypothesis import given
from hypothesis import strategies as st

from workers.upstream.stops import EchoCut, StopCut

LETTERS = st.text("ab", max_size=12)


def shown(pieces, stops):
    cut = StopCut(stops)
    text = "".join(cut.feed(piece) for piece in pieces)
    return text + cut.flush(), cut.is_cut


def test_the_first_stop_string_ends_the_text():
    assert shown(["one tw", "o three"], ["three", "two"]) == ("one ", True)
    assert shown(["one"], []) == ("one", False)


def test_what_may_become_a_stop_string_is_held_back():
    cut = StopCut(["<end>"])
    assert [cut.feed(piece) for piece in ("a<", "e", "x<en", "d>more")] == ["a", "", "<ex", ""]
    assert cut.is_cut


@given(st.lists(LETTERS, max_size=5), st.lists(st.text("ab", min_size=1, max_size=3), max_size=3))
def test_it_is_as_if_the_text_had_come_whole(pieces, stops):
    text = "".join(pieces)
    ends = [end for end in (text.find(stop) for stop in stops) if end >= 0]
    assert shown(pieces, stops) == (text[: min(ends, default=len(text))], bool(ends))


def new(pieces, begun):
    echo = EchoCut(begun)
    return "".join(echo.feed(piece) for piece in pieces) + echo.flush()


def test_what_is_said_again_is_left_out_once():
    assert new(["He", "llo, ", "my name"], "Hello, ") == "my name"
    assert new(["Hello, my"], "Hello, ") == "my"
    assert new(["aa"], "a") == "a"
    assert new(["a", "a"], "a") == "a"


def test_what_is_not_said_again_is_not_missed():
    assert new(["my ", "name"], "Hello, ") == "my name"
    assert new(["He", "y"], "Hello, ") == "Hey"
    assert new(["He"], "Hello, ") == "He"
    assert new(["a", "b"], "") == "ab"
