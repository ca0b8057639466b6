"""What readers say when they look for a book: phrases around the words of a topic."""

from random import Random

from demo.held_out import is_held_out
from demo.phrases import load_phrases
from demo.topics import Language, Topic

#: How often a wish is made of the words readers use, of a word that titles use, and of the topic's name.
CONCEPT_SHARE, TERM_SHARE = 0.76, 0.14

#: Phrases with one slot; a bare word is as good a wish as a sentence.
PHRASES = load_phrases()["wishes"]

#: How two words of one topic are joined in a wish.
_JOINS: dict[Language, tuple[str, ...]] = {"zh": ("和", "、", "或者", "与"), "en": (" and ", " or ", ", ")}
#: Share of wishes that name two words of their topic.
_TWO_WORDS_SHARE = 0.12


def make_wish(topic: Topic, language: Language, random: Random) -> str:
    """One wish that books on the topic would fulfil."""
    word = _choose_word(topic, language, random)
    if random.random() < _TWO_WORDS_SHARE:
        word += random.choice(_JOINS[language]) + _choose_word(topic, language, random)
    return say(word, language, random)


def make_wish_of(topic: Topic, language: Language, random: Random, *, held_out: bool) -> str:
    """One wish of the asked split."""
    while True:
        wish = make_wish(topic, language, random)
        if is_held_out(wish) == held_out:
            return wish


def say(word: str, language: Language, random: Random) -> str:
    """A phrase around any word."""
    wish = random.choice(PHRASES[language]).replace("{w}", word)
    return wish[:1].upper() + wish[1:] if random.random() < 0.2 else wish


def _choose_word(topic: Topic, language: Language, random: Random) -> str:
    share = random.random()
    if share < CONCEPT_SHARE:
        return random.choice(topic.wishes[language])
    if share < CONCEPT_SHARE + TERM_SHARE:
        return random.choice(topic.title_words(language))
    return topic.name[language]
