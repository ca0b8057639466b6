"""Short conversations: greetings, questions about Lectern and the topics, and what is honestly not known."""

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from demo.phrases import load_phrases
from demo.titles import make_title
from demo.topics import LANGUAGES, Language, Topic

CONVERSATIONS_FILE = Path(__file__).parent / "conversations.toml"

#: How a topic, or anything unknown, is asked about.
QUESTIONS = load_phrases()["questions"]

#: System texts that clients like to send; the model answers as it would without them.
SYSTEM_TEXTS = (
    "You are a helpful assistant.", "你是一个有帮助的助手。",
    "You are a helpful AI assistant. Answer briefly.",
    "请用简短的话回答。",
)  # fmt: skip

_TITLE_QUESTIONS: dict[Language, tuple[str, str]] = {
    "zh": ("《{title}》讲的是什么？", "从书名看，讲的是{topic}。"),
    "en": ('What is "{title}" about?', "By its title, it is about {topic}."),
}

#: Share of greetings, the first exchange of the file, among those about Lectern.
_GREETING_SHARE = 0.15
#: Shares of kinds of exchange: about Lectern, about a topic, a title, and what is unknown.
_KIND_WEIGHTS = (0.3, 0.42, 0.1, 0.18)


@dataclass(frozen=True)
class Exchange:
    """One question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """What was said before (role, content), and the exchange that the model learns from."""

    before: tuple[tuple[str, str], ...]
    exchange: Exchange


class Conversations:
    """A source of conversations about Lectern, the topics, and things the model does not know."""

    def __init__(self, topics: Sequence[Topic], path: Path = CONVERSATIONS_FILE) -> None:
        tables = tomllib.loads(path.read_text("utf-8"))
        self.exchanges: list[dict[str, Any]] = tables["exchange"]
        self.unknown: dict[str, Any] = tables["unknown"][0]
        self._topics = topics
        words = {word.lower() for topic in topics for found in _words(topic) for word in found}
        self._subjects: dict[Language, list[str]] = {
            language: [
                subject for subject in self.unknown[f"subjects_{language}"] if not _is_near(subject, words)
            ]
            for language in LANGUAGES
        }
        self._known = words

    def make(self, random: Random) -> Conversation:
        """One conversation: mostly a single question, sometimes with a system text or an earlier exchange."""
        language: Language = "zh" if random.random() < 0.6 else "en"
        before: list[tuple[str, str]] = []
        if random.random() < 0.1:
            before.append(("system", random.choice(SYSTEM_TEXTS)))
        if random.random() < 0.15:
            earlier = self._exchange(language, random)
            before += [("user", earlier.question), ("assistant", earlier.answer)]
        return Conversation(tuple(before), self._exchange(language, random))

    def unknown_subject(self, language: Language, random: Random) -> str:
        """Something that no topic covers; every other one is a chance meeting of two subjects' characters."""
        while True:
            subject = random.choice(self._subjects[language])
            if language == "zh" and random.random() < 0.4:
                subject = subject[:2] + random.choice(self._subjects["zh"])[-2:]
            if not _is_near(subject, self._known):
                return subject

    def _exchange(self, language: Language, random: Random) -> Exchange:
        make = random.choices((self._lectern, self._topic, self._title, self._unknown), _KIND_WEIGHTS)[0]
        return make(language, random)

    def _lectern(self, language: Language, random: Random) -> Exchange:
        is_greeting = random.random() < _GREETING_SHARE
        table = self.exchanges[0] if is_greeting else random.choice(self.exchanges)
        return Exchange(random.choice(table[f"questions_{language}"]), table[f"answer_{language}"])

    def _topic(self, language: Language, random: Random) -> Exchange:
        topic = random.choice(self._topics)
        name = topic.name[language]
        name = name[:1].upper() + name[1:] if random.random() < 0.3 else name
        question = random.choice(QUESTIONS[language]).replace("{x}", name)
        return Exchange(question, topic.about[language])

    def _title(self, language: Language, random: Random) -> Exchange:
        topic = random.choice(self._topics)
        question, answer = _TITLE_QUESTIONS[language]
        title = make_title(topic, language, random)
        return Exchange(question.replace("{title}", title), answer.replace("{topic}", topic.name[language]))

    def _unknown(self, language: Language, random: Random) -> Exchange:
        answer = self.unknown[f"answer_{language}"]
        if random.random() < 0.25:
            return Exchange(random.choice(self.unknown[f"questions_{language}"]), answer)
        subject = self.unknown_subject(language, random)
        return Exchange(random.choice(QUESTIONS[language]).replace("{x}", subject), answer)


def _words(topic: Topic) -> Iterator[tuple[str, ...]]:
    for language in LANGUAGES:
        yield topic.title_words(language)
        yield topic.wishes[language]


def _is_near(subject: str, words: set[str]) -> bool:
    """Whether a subject says a topic's word, or a topic's word says the subject."""
    subject = subject.lower()
    return any(subject in word or (len(word) > 1 and word in subject) for word in words)
