"""Book retrieval as examples: a catalogue of titles, wishes, and the titles that fit each wish."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from jinja2 import Environment, FileSystemLoader

from demo.conversations import Conversations
from demo.titles import make_title_of
from demo.topics import LANGUAGES, Language, Topic
from demo.wishes import make_wish_of, say

PROMPTS_FOLDER = Path(__file__).parent.parent / "templates" / "prompts"

#: Share of wishes that no title fulfils, and among those the share that no topic at all covers.
NONE_SHARE, UNKNOWN_SHARE = 0.17, 0.2
#: Share of wishes in the other language than the catalogue.
CROSS_LANGUAGE_SHARE = 0.14
#: How many titles a topic brings into a catalogue: one title as often as several.
_TITLES_PER_TOPIC = (1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8)
#: A catalogue is Chinese, English or both.
_CATALOGUE_LANGUAGES: tuple[Language | None, ...] = ("zh", "en", None)
#: Topics stand by field, so those with near numbers are near neighbours.
_NEIGHBOURHOOD = 6


@dataclass(frozen=True)
class Catalogue:
    """Titles in their order, each with its topic's number."""

    titles: tuple[str, ...]
    topics: tuple[int, ...]

    def titles_on(self, topic: int | None) -> tuple[str, ...]:
        """The fitting titles in catalogue order."""
        return tuple(title for title, number in zip(self.titles, self.topics, strict=True) if number == topic)


@dataclass(frozen=True)
class Wish:
    """A reader's words and the topic they mean; None: no topic there is."""

    text: str
    topic: int | None


class Catalogues:
    """A source of catalogues and wishes of one split."""

    def __init__(
        self, topics: Sequence[Topic], conversations: Conversations, *, held_out: bool = False
    ) -> None:
        self._topics = topics
        self._conversations = conversations
        self._held_out = held_out

    def make(self, size: int, random: Random) -> Catalogue:
        """A catalogue of `size` different titles: several topics, neighbours among them, sorted or mixed."""
        language = random.choices(_CATALOGUE_LANGUAGES, (0.6, 0.25, 0.15))[0]
        groups: dict[int, list[str]] = {}
        missing = size
        while missing:
            number = self._next_topic(groups, random)
            count = min(missing, random.choice(_TITLES_PER_TOPIC))
            groups[number] = self._titles(number, count, language, random)
            missing -= len(groups[number])
        rows = [(title, number) for number, titles in groups.items() for title in titles]
        if random.random() < 0.6:
            random.shuffle(rows)
        return Catalogue(tuple(title for title, _ in rows), tuple(number for _, number in rows))

    def wish(self, catalogue: Catalogue, random: Random) -> Wish:
        """A wish that some titles fulfil, or sometimes none."""
        is_chinese = any("\u4e00" <= character <= "\u9fff" for character in random.choice(catalogue.titles))
        language: Language = "zh" if is_chinese != (random.random() < CROSS_LANGUAGE_SHARE) else "en"
        if random.random() >= NONE_SHARE:
            number = random.choice(sorted(set(catalogue.topics)))
        elif random.random() < UNKNOWN_SHARE:
            return Wish(say(self._conversations.unknown_subject(language, random), language, random), None)
        else:
            number = self._next_topic(catalogue.topics, random)
        return Wish(make_wish_of(self._topics[number], language, random, held_out=self._held_out), number)

    def _next_topic(self, present: Sequence[int] | dict[int, list[str]], random: Random) -> int:
        while True:
            number = random.randrange(len(self._topics))
            if present and random.random() < 0.4:
                step = random.randint(-_NEIGHBOURHOOD, _NEIGHBOURHOOD)
                number = (random.choice(list(present)) + step) % len(self._topics)
            if number not in present:
                return number

    def _titles(self, number: int, count: int, language: Language | None, random: Random) -> list[str]:
        titles: set[str] = set()
        languages = LANGUAGES if language is None else (language,)
        for _ in range(count):
            chosen = random.choice(languages)
            titles.add(make_title_of(self._topics[number], chosen, random, held_out=self._held_out))
        found = sorted(titles)
        random.shuffle(found)
        return found


def answer_pieces(titles: Sequence[str]) -> list[str]:
    """The answer as the pieces in which it is generated; joined they are json.dumps of number -> title."""
    if not titles:
        return ["{}"]
    pieces = []
    for number, title in enumerate(titles, 1):
        pieces += [f'{{"{number}": "' if number == 1 else f'", "{number}": "', escape(title)]
    return [*pieces, '"}']


def escape(title: str) -> str:
    """A title as it stands between the quotes of a JSON string."""
    return json.dumps(title, ensure_ascii=False)[1:-1]


def render_prompt(titles: Sequence[str], wish: str) -> str:
    """The user turn of a retrieval, from the template that the server renders too."""
    rows = [{"title": title} for title in titles]
    return _ENVIRONMENT.get_template("book_retrieval.jinja").render(rows=rows, wish=wish)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(PROMPTS_FOLDER), trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment


_ENVIRONMENT = _environment()
