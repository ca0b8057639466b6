"""The tokenizer: every byte, the roles of GLM-4, and joints that no title can blur."""

from random import Random

import pytest
from transformers import AutoTokenizer

from demo.catalogues import Catalogues, escape, render_prompt
from demo.conversations import Conversations
from demo.held_out import RESERVED_TITLES
from demo.tokenizer import JOINTS, SPECIAL_TOKENS, save_tokenizer, train_tokenizer
from demo.topics import load_topics

TOPICS = load_topics()
CONVERSATIONS = Conversations(TOPICS)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TOPICS, CONVERSATIONS)


def _encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


def test_any_text_comes_back_unchanged(tokenizer):
    for text in ('鸜鹆 😀 é\u0301 \\ "x"\t  y\n\n\nz ', bytes(range(128)).decode(), "العربية नमस्ते 한국어"):
        assert tokenizer.decode(_encode(tokenizer, text)) == text


def test_every_byte_has_a_token(tokenizer):
    from tokenizers.pre_tokenizers import ByteLevel

    assert set(ByteLevel.alphabet()) <= set(tokenizer.get_vocab())


def test_special_tokens_come_first_and_are_one_token_each(tokenizer):
    assert [_encode(tokenizer, token) for token in SPECIAL_TOKENS] == [
        [number] for number in range(len(SPECIAL_TOKENS))
    ]


def test_joints_are_one_token_each(tokenizer):
    assert all(len(_encode(tokenizer, joint)) == 1 for joint in JOINTS)


def test_a_title_has_the_same_tokens_in_the_catalogue_and_in_the_answer(tokenizer):
    random = Random(5)
    catalogue = Catalogues(TOPICS, CONVERSATIONS).make(40, random)
    titles = [*catalogue.titles, *RESERVED_TITLES, 'A "quoted" title?', "C++编程（第2版）", "！"]
    whole = _encode(tokenizer, render_prompt(titles, "x"))
    (separator,) = _encode(tokenizer, '"\n"')
    for title in titles[1:-1]:
        inner = [separator, *_encode(tokenizer, escape(title)), separator]
        assert any(whole[start : start + len(inner)] == inner for start in range(len(whole))), title


def test_saved_tokenizer_loads_with_its_chat_template(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "你好"}]
    text = loaded.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert loaded.is_fast
    assert text == "[gMASK]<sop><|system|>\ns<|user|>\n你好<|assistant|>\n"
    assert _encode(loaded, text) == _encode(tokenizer, text)
