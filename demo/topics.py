"""The topics of the demonstration model: what the two data files say, checked."""

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Language = Literal["zh", "en"]

LANGUAGES: tuple[Language, ...] = ("zh", "en")

#: Where the topics lie; the order of the files fixes the numbers of the topics.
TOPIC_FILES = tuple(Path(__file__).parent / name for name in ("topics_science.toml", "topics_culture.toml"))


@dataclass(frozen=True)
class Topic:
    """One subject, in both languages: `terms` may stand in titles, `wishes` are what readers say instead."""

    number: int
    name: Mapping[Language, str]
    terms: Mapping[Language, tuple[str, ...]]
    wishes: Mapping[Language, tuple[str, ...]]
    about: Mapping[Language, str]

    def title_words(self, language: Language) -> tuple[str, ...]:
        """Words that a title on this topic may be built from."""
        return tuple(dict.fromkeys((self.name[language], *self.terms[language])))


def load_topics(paths: Iterable[Path] = TOPIC_FILES) -> tuple[Topic, ...]:
    """Read the topic files; raises ValueError where a table is incomplete or a name comes twice."""
    tables = [table for path in paths for table in tomllib.loads(path.read_text("utf-8"))["topic"]]
    topics = [_topic(number, table) for number, table in enumerate(tables)]
    _check_names(topics)
    return without_shared_words(topics)


def without_shared_words(topics: Iterable[Topic]) -> tuple[Topic, ...]:
    """Drop every term and wish that two topics claim: which one fits could not be told."""
    topics = tuple(topics)
    owners = Counter(word for topic in topics for word in _all_words(topic))
    names = {topic.name[language].lower() for topic in topics for language in LANGUAGES}
    return tuple(_keep_own_words(topic, owners, names) for topic in topics)


def _topic(number: int, table: Mapping[str, Any]) -> Topic:
    name = dict(zip(LANGUAGES, table["name"], strict=True))
    words = {
        kind: {language: tuple(table[f"{kind}_{language}"]) for language in LANGUAGES}
        for kind in ("terms", "wishes")
    }
    about = {language: table[f"about_{language}"] for language in LANGUAGES}
    for kind, by_language in words.items():
        for language, found in by_language.items():
            if not found:
                raise ValueError(f"topic {name['en']!r}: {kind}_{language} must not be empty")
    return Topic(number, name, words["terms"], words["wishes"], about)


def _check_names(topics: Iterable[Topic]) -> None:
    for language in LANGUAGES:
        for name, count in Counter(topic.name[language].lower() for topic in topics).items():
            if count > 1:
                raise ValueError(f"topic name must be unique, but {name!r} stands {count} times")


def _all_words(topic: Topic) -> set[str]:
    return {word.lower() for kind in (topic.terms, topic.wishes) for found in kind.values() for word in found}


def _keep_own_words(topic: Topic, owners: Counter[str], names: set[str]) -> Topic:
    def own(words: tuple[str, ...], language: Language) -> tuple[str, ...]:
        name = topic.name[language].lower()
        return tuple(
            word
            for word in words
            if owners[word.lower()] == 1 and (word.lower() == name or word.lower() not in names)
        )

    terms = {language: own(topic.terms[language], language) for language in LANGUAGES}
    wishes = {language: own(topic.wishes[language], language) for language in LANGUAGES}
    return Topic(topic.number, topic.name, terms, wishes, topic.about)
