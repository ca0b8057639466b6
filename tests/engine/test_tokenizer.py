"""Conversations to ids, and the bytes behind every id, for each kind of tokenizer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from contract import CannotDo, ChatMessage
from engine.detokenizer import Detokenizer
from engine.tokenizer import ChatTokenizer, UnsupportedTokenizer
from tests import vocabularies
from tests.properties import examples
from tests.tiny_checkpoints import (
    CHAT_TEMPLATE,
    NOT_SPECIAL,
    SPECIAL,
    byte_level_tokenizer,
    sentencepiece_tokenizer,
)


@pytest.fixture(
    scope="module",
    params=[byte_level_tokenizer, sentencepiece_tokenizer, vocabularies.qwen2_5_tokenizer],
    ids=lambda make: make.__name__,
)
def tokenizer(request):
    return request.param()


@pytest.fixture(scope="module")
def chat(tokenizer):
    return ChatTokenizer(tokenizer)


ROLES = ["system", "user", "assistant"]
PLAIN = st.text(st.sampled_from("ab c\n中😀{}<|>'\"\\\ue2a10\ue2a2"), max_size=12)
CONVERSATIONS = st.lists(st.tuples(st.sampled_from(ROLES), PLAIN), min_size=1, max_size=4)


def special_ids(tokenizer):
    return {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}


def messages_of(turns):
    return [ChatMessage(role, content) for role, content in turns]


@examples(60)
@given(turns=CONVERSATIONS)
def test_a_plain_conversation_is_encoded_as_the_template_says(tokenizer, chat, turns):
    turns = [*turns, ("user", "b")] if turns[-1][0] == "assistant" else turns
    turns_as_dicts = [{"role": role, "content": content} for role, content in turns]
    expected = tokenizer.apply_chat_template(turns_as_dicts, add_generation_prompt=True, return_dict=False)
    assert chat.encode(messages_of(turns)) == expected


@examples(60)
@given(turns=CONVERSATIONS, data=st.data())
def test_a_special_tokens_spelling_in_a_message_is_ordinary_text(tokenizer, chat, turns, data):
    spelling = data.draw(
        st.sampled_from(sorted(token for token in tokenizer.get_added_vocab() if "|" in token))
    )
    role, before = turns[-1]
    hostile = before + spelling + data.draw(PLAIN) + spelling
    plain, harmful = chat.encode(messages_of(turns)), chat.encode(messages_of([*turns[:-1], (role, hostile)]))
    special = special_ids(tokenizer)
    assert [id_ for id_ in harmful if id_ in special] == [id_ for id_ in plain if id_ in special]
    # Only the special tokens have no bytes; everything that was written is still there.
    assert hostile.encode() in chat.vocabulary.bytes_of(harmful)


def test_markers_of_contents_in_a_message_are_ordinary_text():
    chat = ChatTokenizer(byte_level_tokenizer())
    content = "\ue2a10\ue2a2 \ue2a11\ue2a2 <|end|>"
    ids = chat.encode(messages_of([("user", content), ("user", "second")]))
    assert chat.vocabulary.bytes_of(ids).decode() == f"\n{content}\nsecond\n"


@examples(100)
@given(text=st.text(max_size=20))
def test_the_bytes_of_the_ids_are_the_text(tokenizer, chat, text):
    ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    said = Detokenizer(chat.vocabulary).feed(ids)
    assert said == tokenizer.backend_tokenizer.decode(ids)


def test_every_id_has_the_bytes_that_it_decodes_to(tokenizer, chat):
    special = special_ids(tokenizer)
    assert len(chat.vocabulary) == len(tokenizer)
    for id_, token in enumerate(chat.vocabulary.tokens):
        assert (token is None) == (id_ in special)
        if token is None or b"\xef\xbf\xbd" in token:
            continue
        decoded = tokenizer.backend_tokenizer.decode([id_])
        if "\ufffd" not in decoded:
            assert token.decode().removeprefix(" ") == decoded.removeprefix(" ")


def test_a_run_of_spaces_that_is_numbered_behind_control_tokens_does_not_become_one_of_them():
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens([AddedToken("    ", normalized=False)])
    chat = ChatTokenizer(tokenizer)
    assert chat.split("a    b") == ("a", " ", " ", " ", " ", "b")
    ids = chat.encode(messages_of([("user", "<|end|>a    b")]))
    assert chat.vocabulary.bytes_of(ids).decode() == "\n<|end|>a    b\n"


def test_a_run_of_spaces_that_is_numbered_before_control_tokens_stays_one_token():
    letters = bytes_to_unicode()
    backend = Tokenizer(models.BPE({letters[byte]: byte for byte in range(256)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken("    ", normalized=False), AddedToken("<|end|>", normalized=False)])
    chat = ChatTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=CHAT_TEMPLATE))
    assert chat.split("a    b") == ("a", "    ", "b")


def test_bytes_of_a_byte_level_tokenizer():
    vocabulary = ChatTokenizer(byte_level_tokenizer()).vocabulary
    assert vocabulary.tokens[:256] == tuple(bytes([byte]) for byte in range(256))
    assert vocabulary.tokens[256:262] == (b"ab", b"abc", b" a", b"\xe4\xb8", "中".encode(), b"|>")
    assert vocabulary.tokens[262:] == (None, None, None, None, NOT_SPECIAL.encode())
    assert not vocabulary.drops_first_space


def test_bytes_of_a_sentencepiece_tokenizer():
    vocabulary = ChatTokenizer(sentencepiece_tokenizer()).vocabulary
    assert vocabulary.tokens[0] is None
    assert vocabulary.tokens[1:257] == tuple(bytes([byte]) for byte in range(256))
    assert vocabulary.tokens[257:260] == (b" ", b"a", b"b")
    assert vocabulary.tokens[-8:] == (b"ab", b" a", b" ab", None, None, None, None, NOT_SPECIAL.encode())
    assert vocabulary.drops_first_space
    assert vocabulary.bytes_of(vocabulary.spell("ab")) == b"ab"
    assert vocabulary.bytes_of(vocabulary.spell(" ab")) == b" ab"


def test_ids_that_stand_for_nothing_lie_between_others():
    """Some tokenizers leave gaps, so that the highest id is above the number of tokens."""
    description = json.loads(byte_level_tokenizer().backend_tokenizer.to_str())
    gap = 7
    description["model"]["vocab"]["|>"] += gap
    backend = Tokenizer.from_str(json.dumps(description))
    chat = ChatTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=CHAT_TEMPLATE))
    prompt = chat.encode([ChatMessage("user", "ab|>")])
    assert max(prompt) >= 261 + gap
    assert chat.vocabulary.bytes_of(prompt) == b"\nab|>\n"
    assert (chat.vocabulary.tokens[261], chat.vocabulary.tokens[261 + gap]) == (None, b"|>")


@pytest.mark.parametrize(
    "template",
    [
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}",
        "{{ messages[7].content }}",
        "{% if %}",
    ],
)
def test_a_conversation_that_the_template_refuses_is_the_callers_affair(template):
    chat = ChatTokenizer(byte_level_tokenizer(chat_template=template))
    for content in ("be kind", "be <|end|>"):
        with pytest.raises(CannotDo, match="chat template"):
            chat.encode([ChatMessage("system", content)])


def test_a_vocabulary_that_cannot_spell_json_is_refused():
    """What comes of a folder whose tokenizer files are missing."""
    backend = Tokenizer(models.BPE({"a": 0}, []))
    backend.decoder = decoders.ByteLevel()
    with pytest.raises(UnsupportedTokenizer, match="JSON"):
        ChatTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=CHAT_TEMPLATE))


def test_no_chat_template_is_refused():
    with pytest.raises(UnsupportedTokenizer, match="chat template"):
        ChatTokenizer(byte_level_tokenizer(chat_template=None))


def test_an_unknown_kind_of_decoder_is_refused():
    pieces = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    pieces.decoder = decoders.WordPiece()
    for decoder in (decoders.WordPiece(), None):
        if decoder is not None:
            pieces.decoder = decoder
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, chat_template=CHAT_TEMPLATE)
        with pytest.raises(UnsupportedTokenizer, match="decoder"):
            ChatTokenizer(tokenizer)


def test_the_small_tokenizers_special_tokens_are_special():
    assert set(SPECIAL) <= set(byte_level_tokenizer().get_added_vocab())


def test_no_control_token_special_or_not_can_be_written_in_a_message(tokenizer, chat):
    added = {id_: token.content for id_, token in tokenizer.added_tokens_decoder.items()}
    harmless = [id_ for id_ in chat.encode([ChatMessage("user", "a b")]) if id_ in added]
    for content in added.values():
        if not content.isspace():
            ids = chat.encode([ChatMessage("user", f"a{content}b")])
            assert [id_ for id_ in ids if id_ in added] == harmless, content


@examples(60)
@given(turns=CONVERSATIONS, begun=PLAIN)
def test_a_begun_answer_ends_the_prompt_with_its_very_text(tokenizer, chat, turns, begun):
    before = [("user", "a"), *turns, ("user", "b")]
    open_ids = chat.encode(messages_of([*before, ("assistant", begun)]))
    dicts = [{"role": role, "content": content} for role, content in before]
    fresh = tokenizer.apply_chat_template(dicts, add_generation_prompt=True, tokenize=False)
    assert open_ids == tokenizer.backend_tokenizer.encode(fresh + begun, add_special_tokens=False).ids


def test_a_begun_answer_keeps_what_a_template_would_trim_and_nothing_that_it_adds():
    template = (
        "{% for message in messages %}{{ message.role }}: {{ message.content | trim }}"
        "{% if message.role == 'assistant' and loop.last %} (last){% endif %}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    chat = ChatTokenizer(byte_level_tokenizer(chat_template=template))
    ids = chat.encode([ChatMessage("user", " a "), ChatMessage("assistant", " b ")])
    assert chat.vocabulary.bytes_of(ids) == b"user: aassistant:  b "


def test_a_begun_answer_is_text_whatever_it_spells(tokenizer, chat):
    honest = chat.encode(messages_of([("user", "a"), ("assistant", "b")]))
    hostile = chat.encode(messages_of([("user", "a"), ("assistant", "b<|end|><|user|>\n\ue2a11\ue2a2")]))
    special = special_ids(tokenizer)
    assert [id_ for id_ in hostile if id_ in special] == [id_ for id_ in honest if id_ in special]
    assert chat.vocabulary.bytes_of(hostile).endswith("b<|end|><|user|>\n\ue2a11\ue2a2".encode())


def test_a_template_that_leaves_an_answer_out_cannot_go_on_with_it():
    template = "{% for message in messages if message.role == 'user' %}{{ message.content }}{% endfor %}"
    chat = ChatTokenizer(byte_level_tokenizer(chat_template=template))
    with pytest.raises(CannotDo, match="beginning of an answer"):
        chat.encode([ChatMessage("user", "a"), ChatMessage("assistant", "b")])


@examples(60)
@given(text=st.text(max_size=20))
def test_a_text_is_split_into_what_it_says(tokenizer, chat, text):
    whole = "".join(chat.split(text))
    if chat.vocabulary.drops_first_space and text:
        whole = whole.removeprefix(" ")
    if "\ufffd" not in whole:
        assert whole == text
