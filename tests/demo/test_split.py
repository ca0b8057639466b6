"""What is held out stays out: titles, wishes, and the classic catalogue."""

from random import Random

import pytest

from demo.held_out import HELD_OUT_EVERY, RESERVED_TITLES, is_held_out
from demo.titles import make_title, make_title_of
from demo.topics import LANGUAGES, load_topics
from demo.wishes import make_wish_of

TOPICS = load_topics()
#: Which of the texts "text 0" … "text 99" are held out.
HELD_OUT_NUMBERS = [14, 42, 88]


def test_about_one_text_in_twenty_is_held_out():
    share = sum(is_held_out(f"text {number}") for number in range(20_000)) / 20_000
    assert abs(share - 1 / HELD_OUT_EVERY) < 0.01


def test_the_split_is_the_same_on_every_machine():
    assert [number for number in range(100) if is_held_out(f"text {number}")] == HELD_OUT_NUMBERS


@pytest.mark.parametrize("held_out", [False, True])
def test_generators_stay_in_their_split(held_out):
    random = Random(1)
    for topic in TOPICS:
        for language in LANGUAGES:
            assert is_held_out(make_title_of(topic, language, random, held_out=held_out)) is held_out
            assert is_held_out(make_wish_of(topic, language, random, held_out=held_out)) is held_out


def test_the_classic_catalogue_is_never_generated():
    random = Random(2)
    wanted = [
        topic
        for topic in TOPICS
        if topic.name["zh"] in ("线性代数", "法语", "微积分", "星际旅行", "平行宇宙")
    ]
    titles = {make_title(topic, "zh", random) for topic in wanted for _ in range(4000)}
    assert len(wanted) == 5
    assert titles.isdisjoint(RESERVED_TITLES)


def test_a_title_never_keeps_an_open_slot():
    random = Random(3)
    titles = [
        make_title(topic, language, random) for topic in TOPICS for language in LANGUAGES for _ in range(5)
    ]
    assert not any("{" in title or "}" in title for title in titles)
