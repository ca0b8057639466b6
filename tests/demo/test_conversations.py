"""Conversations and catalogues: what is said about topics, and what is honestly not known."""

from random import Random

import pytest

from demo.catalogues import Catalogues
from demo.conversations import Conversations
from demo.topics import LANGUAGES, Topic, load_topics, without_shared_words

TOPICS = load_topics()
CONVERSATIONS = Conversations(TOPICS)


def _topic(number, terms, wishes):
    name = {"zh": f"题{number}", "en": f"topic {number}"}
    both = {"zh": terms, "en": terms}
    return Topic(number, name, both, {"zh": wishes, "en": wishes}, name)


def test_there_are_two_hundred_topics_with_words_of_their_own():
    assert len(TOPICS) == 200
    for topic in TOPICS:
        assert all(
            len(topic.wishes[language]) >= 4 and topic.title_words(language) for language in LANGUAGES
        ), topic


def test_a_word_that_two_topics_claim_is_dropped_from_both():
    first, second = without_shared_words(
        [_topic(0, ("a", "b"), ("x", "y")), _topic(1, ("c", "Y"), ("z", "topic 0"))]
    )
    assert first.wishes["en"] == ("x",)
    assert second.terms["en"] == ("c",)
    assert second.wishes["en"] == ("z",)


def test_unknown_subjects_are_no_words_of_a_topic():
    words = {word.lower() for topic in TOPICS for language in LANGUAGES for word in topic.wishes[language]}
    random = Random(6)
    subjects = {
        CONVERSATIONS.unknown_subject(language, random).lower() for language in LANGUAGES for _ in range(300)
    }
    assert subjects.isdisjoint(words)


def test_conversations_end_with_a_question_and_an_answer():
    random = Random(7)
    for _ in range(300):
        conversation = CONVERSATIONS.make(random)
        assert conversation.exchange.question
        assert conversation.exchange.answer
        assert all(role in ("system", "user", "assistant") for role, _ in conversation.before)


@pytest.mark.parametrize("size", [1, 5, 60])
def test_a_catalogue_has_its_size_and_no_title_twice(size):
    catalogue = Catalogues(TOPICS, CONVERSATIONS).make(size, Random(8))
    assert len(catalogue.titles) == len(set(catalogue.titles)) == size


def test_some_wishes_are_fulfilled_by_no_title():
    random = Random(9)
    catalogues = Catalogues(TOPICS, CONVERSATIONS)
    catalogue = catalogues.make(20, random)
    answers = [catalogue.titles_on(catalogues.wish(catalogue, random).topic) for _ in range(400)]
    assert 0.1 < sum(not answer for answer in answers) / len(answers) < 0.25
