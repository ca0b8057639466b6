"""The tokenizer of the demonstration model: byte-level BPE whose merges follow the words of the topics."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from demo.catalogues import render_prompt
from demo.conversations import QUESTIONS, SYSTEM_TEXTS, Conversations
from demo.titles import patterns
from demo.topics import LANGUAGES, Topic
from demo.wishes import PHRASES

VOCABULARY_SIZE = 10240

#: How often each Chinese character counts: enough to become a token before any word does.
_CHARACTER_COUNT = 400

#: The names of GLM-4, in its order.
SPECIAL_TOKENS = (
    "<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>",
    "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
)  # fmt: skip

#: A generation ends where the text ends or another role would speak.
END_TOKENS = ("<|endoftext|>", "<|user|>", "<|observation|>")

CHAT_TEMPLATE = (
    "[gMASK]<sop>{% for message in messages %}"
    "<|{{ 'observation' if message.role == 'tool' else message.role }}|>\n{{ message.content }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

#: The joints of a catalogue and of an answer; each is one token and never mixes with those of a title.
JOINTS = ('"\n"', '"\n\n', '\n\n"', '": "', '", "', '{"', '"}', "{}")

_JOINT = r'"\n"|"\n\n|\n\n"|": "|", "|\{"|"\}|\{\}'
_WORD = r"\p{Han}+| ?[\p{L}\p{M}&&[^\p{Han}]]+| ?\p{N}{1,2}"
_SPLIT = rf"{_JOINT}|{_WORD}|\n|\s(?=\s)| ?[^\s\p{{L}}\p{{M}}\p{{N}}]|\s"


def train_tokenizer(topics: Sequence[Topic], conversations: Conversations) -> PreTrainedTokenizerFast:
    """Learn the merges; deterministic for the same data."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_units(topics, conversations), trainer)
    return _with_chat(tokenizer)


def training_units(topics: Sequence[Topic], conversations: Conversations) -> Iterator[str]:
    """Words and phrases one at a time, as often as they should count: merges never cross their borders."""
    for text in [*JOINTS, *(piece for piece in render_prompt([], "").split("\n") if piece)]:
        yield from [text] * 5000
    for language in LANGUAGES:
        for phrase in (*PHRASES[language], *patterns(language), *QUESTIONS[language]):
            yield from _pieces(phrase) * 40
    words = [unit for topic in topics for unit in _topic_units(topic)]
    yield from words
    sentences = list(_sentences(topics, conversations))
    for character in sorted(
        {character for text in (*words, *sentences) for character in text if _is_chinese(character)}
    ):
        yield from [character] * _CHARACTER_COUNT
    for text in sentences:
        yield from _loose_units(text)


def _with_chat(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _pieces(pattern: str) -> list[str]:
    for slot in ("{w}", "{x}", "{y}"):
        pattern = pattern.replace(slot, "\0")
    return [piece for piece in pattern.split("\0") if piece]


def _topic_units(topic: Topic) -> Iterator[str]:
    for language in LANGUAGES:
        words = (*topic.title_words(language) * 4, *topic.wishes[language])
        for word in words:
            yield from [word] * 6
            if language == "en":
                yield from [" " + word, " " + word.title(), word.title()] * 4


def _sentences(topics: Sequence[Topic], conversations: Conversations) -> Iterator[str]:
    yield from (topic.about[language] for topic in topics for language in LANGUAGES)
    yield from SYSTEM_TEXTS
    yield json.dumps([conversations.exchanges, conversations.unknown], ensure_ascii=False)


def _loose_units(text: str) -> Iterator[str]:
    """Chinese character by character, so that sentences add no merges across the borders of words."""
    loose = "".join(f"\0{character}\0" if _is_chinese(character) else character for character in text)
    for piece in loose.split("\0"):
        if piece:
            yield from [piece] * 3


def _is_chinese(character: str) -> bool:
    return "\u2e80" < character < "\u9fff"


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json and its configuration with the chat template inside."""
    tokenizer.save_pretrained(folder, save_jinja_files=False)
