"""Titles of books that do not exist: patterns with words of a topic in them."""

from random import Random

from demo.held_out import is_held_out, is_reserved
from demo.phrases import load_phrases
from demo.topics import Language, Topic

#: Share of titles whose second word is one of the short phrases that readers wish with.
WISH_WORD_SHARE = 0.2
#: A phrase longer than this many characters reads badly inside a title.
LONGEST_WISH_WORD = {"zh": 5, "en": 18}
#: Share of heads that are sought among those which begin with a word of the topic, as most real titles do.
FIRST_WORD_SHARE = 0.6
#: Share of titles whose head says nothing about the topic.
PLAIN_HEAD_SHARE = 0.15
#: Share of titles made of a head and a tail; the others are a head alone.
TAIL_SHARE = {"zh": 0.7, "en": 0.5}

_PHRASES = load_phrases()
#: First halves, and titles on their own; `{x}` is a word of the topic, `{y}` another one.
HEADS = _PHRASES["heads"]
#: Heads that say nothing about the topic: their tail must.
PLAIN_HEADS = _PHRASES["plain_heads"]
#: Second halves without and with a word of the topic.
PLAIN_TAILS, TAILS = _PHRASES["plain_tails"], _PHRASES["tails"]
#: Words that say nothing, and how they make a second half: real titles hold words that no list foresees.
FILLERS = _PHRASES["fillers"]
FILLER_TAILS: dict[Language, tuple[str, ...]] = {
    "zh": ("{f}{f}", "{f}与{f}", "{f}的{f}", "{f}{f}{f}", "{f}、{f}和{f}", "{f}{f}的{f}", "{f}"),
    "en": ("{f} and {f}", "{f} of {f}", "{f}, {f} and {f}", "{f} for {f}", "the {f}"),
}
#: Share of second halves that are made of such words, of first halves that carry one, and of chance words.
FILLER_TAIL_SHARE, FILLER_HEAD_SHARE, CHANCE_WORD_SHARE = 0.4, 0.2, 0.3

_JOIN: dict[Language, str] = {"zh": "：", "en": ": "}
_SMALL_WORDS = frozenset(
    ("a", "an", "and", "as", "at", "by", "for", "from", "in", "into", "of", "on", "or", "the", "to", "with")
)


def make_title(topic: Topic, language: Language, random: Random) -> str:
    """One title on the topic, of any split but never a reserved one."""
    while True:
        title = _compose(topic, language, random)
        if not is_reserved(title):
            return title


def make_title_of(topic: Topic, language: Language, random: Random, *, held_out: bool) -> str:
    """One title of the asked split."""
    while True:
        title = make_title(topic, language, random)
        if is_held_out(title) == held_out:
            return title


def patterns(language: Language) -> tuple[str, ...]:
    """Every pattern of a language, for the tokenizer."""
    return HEADS[language] + PLAIN_HEADS[language] + PLAIN_TAILS[language] + TAILS[language]


def _compose(topic: Topic, language: Language, random: Random) -> str:
    if random.random() >= TAIL_SHARE[language]:
        return _fill(_choose_head(language, random), topic, language, random)
    if random.random() < PLAIN_HEAD_SHARE:
        head, tails = random.choice(PLAIN_HEADS[language]), TAILS[language]
    else:
        head = _choose_head(language, random)
        tails = random.choice((PLAIN_TAILS[language], TAILS[language]))
        if random.random() < FILLER_TAIL_SHARE:
            tails = FILLER_TAILS[language]
    pattern = head + _JOIN[language] + random.choice(tails)
    return _fill(pattern, topic, language, random)


def _choose_head(language: Language, random: Random) -> str:
    heads = HEADS[language]
    if random.random() < FIRST_WORD_SHARE:
        heads = tuple(head for head in heads if head.startswith("{x}"))
    head = random.choice(heads)
    if random.random() >= FILLER_HEAD_SHARE:
        return head
    gap = "" if language == "zh" else " "
    return random.choice((head + gap + "{f}", "{x}" + gap + "{f}", "{x}" + gap + "{f}" + gap + "{f}"))


def _fill(pattern: str, topic: Topic, language: Language, random: Random) -> str:
    while "{f}" in pattern:
        pattern = pattern.replace("{f}", _choose_filler(language, random), 1)
    used: set[str] = set()
    for slot in ("{x}", "{y}"):
        while slot in pattern:
            word = _choose_word(topic, language, random)
            if word in used and random.random() < 0.9:
                continue
            used.add(word)
            pattern = pattern.replace(slot, word, 1)
    return pattern


def _choose_word(topic: Topic, language: Language, random: Random) -> str:
    words = topic.title_words(language)
    if random.random() < WISH_WORD_SHARE:
        words = _short_wishes(topic, language) or words
    word = random.choice(words)
    return word if language == "zh" else _in_title_case(word)


def _choose_filler(language: Language, random: Random) -> str:
    """A word that says nothing, or in Chinese two characters that met by chance."""
    if language == "en":
        return _in_title_case(random.choice(FILLERS["en"]))
    if random.random() < CHANCE_WORD_SHARE:
        return "".join(random.choice(random.choice(FILLERS["zh"])) for _ in range(2))
    return random.choice(FILLERS["zh"])


def _short_wishes(topic: Topic, language: Language) -> tuple[str, ...]:
    return tuple(word for word in topic.wishes[language] if len(word) <= LONGEST_WISH_WORD[language])


def _in_title_case(words: str) -> str:
    return " ".join(
        word if word in _SMALL_WORDS else word[:1].upper() + word[1:] for word in words.split(" ")
    )
