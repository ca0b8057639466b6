import base64
from functools import cache

import pytest
import sentencepiece
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contract import ChatMessage
from engine.checkpoints.chatglm_tokenizers import build_tokenizer
from engine.checkpoints.families import CHATGLM2, CHATGLM3, GLM4, UnsupportedCheckpoint
from engine.tokenizer import ChatTokenizer
from tests.engine.original_checkpoints import TOKENIZER_FOLDERS
from tests.vocabularies import GLM4_PATTERN, folder

FAMILIES = [CHATGLM2, CHATGLM3, GLM4]

#: Ids of the published tokenizers: families, names, ids.
PUBLISHED_IDS = [
    (
        CHATGLM2,
        {"</s>": 2, "[MASK]": 64789, "[gMASK]": 64790, "[sMASK]": 64791, "<sop>": 64792, "<eop>": 64793},
    ),
    (CHATGLM3, {"</s>": 2, "[gMASK]": 64790, "<sop>": 64792, "<|system|>": 64794, "<|user|>": 64795}),
    (CHATGLM3, {"<|assistant|>": 64796, "<|observation|>": 64797}),
    (GLM4, {"<|endoftext|>": 151329, "[gMASK]": 151331, "<sop>": 151333, "<|system|>": 151335}),
    (
        GLM4,
        {"<|user|>": 151336, "<|assistant|>": 151337, "<|observation|>": 151338, "<|end_of_video|>": 151342},
    ),
]

#: Spellings that mean something to a tokenizer, and characters that regular expressions quarrel about.
FRAGMENTS = [
    *("<|user|>", "[gMASK]", "<sop>", "</s>", "<unk>", "<0x0A>", "sop", "<|endoftext|>"),
    *("你好", "，", "哈哈哈哈", "한국어", "日本語の", "🙂", "👩‍👩‍👧", "e\u0301", "ﬁ", "Ａ１", "𝒳"),
    *("The ", " don'T", "'ll", "  ", "\n", "\r\n", "\t", "\u3000", "\xa0", "\u2028", "\x00", "\x1c"),
    *("1234567", "١٢", "aaaaaa", "-----", "def f(x):\n        return x", "\\(\\frac{1}{2}\\)"),
]

#: Any text, Chinese, English, numbers, and fragments next to each other.
TEXTS = st.one_of(
    st.text(),
    st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=4)), max_size=8).map("".join),
)

MANY = settings(deadline=None, max_examples=150)


@cache
def fast(family):
    files = folder(TOKENIZER_FOLDERS[family.name])
    return build_tokenizer(files / "tokenizer.model", family, {})


@cache
def chat(family):
    return ChatTokenizer(fast(family), contents_apart=family.contents_apart)


@cache
def pieces():
    return sentencepiece.SentencePieceProcessor(model_file=str(folder("chatglm3") / "tokenizer.model"))


@cache
def ranks():
    lines = [line.split() for line in (folder("glm4") / "tokenizer.model").read_bytes().splitlines()]
    return {base64.b64decode(token): int(rank) for token, rank in lines}


@cache
def encoding():
    return tiktoken.Encoding("glm4", pat_str=GLM4_PATTERN, mergeable_ranks=ranks(), special_tokens={})


def published_encode(family, text):
    """Return the ids of a text by the library that the published tokenizer uses."""
    return encoding().encode_ordinary(text) if family is GLM4 else pieces().encode(text)


def plain_encode(family, text):
    """Return the ids of a text that is nothing but text."""
    backend = fast(family).backend_tokenizer
    backend.encode_special_tokens = True
    try:
        return backend.encode(text, add_special_tokens=False).ids
    finally:
        backend.encode_special_tokens = False


@pytest.mark.parametrize(("family", "ids"), PUBLISHED_IDS)
def test_special_tokens_have_the_published_ids(family, ids):
    assert {name: fast(family).convert_tokens_to_ids(name) for name in ids} == ids


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_answers_end_at_the_published_tokens(family):
    names = {
        CHATGLM2.name: ["</s>"],
        CHATGLM3.name: ["</s>", "<|user|>", "<|observation|>"],
        GLM4.name: ["<|endoftext|>", "<|user|>", "<|observation|>"],
    }
    assert fast(family).convert_ids_to_tokens(list(family.end_ids)) == names[family.name]


@pytest.mark.parametrize("family", [CHATGLM3, GLM4], ids=lambda family: family.name)
@MANY
@given(TEXTS)
@example("")
@example(" ")
@example("\u2581")
def test_texts_are_encoded_as_the_published_tokenizer_does(family, text):
    assert plain_encode(family, text) == published_encode(family, text)


@pytest.mark.parametrize("family", [CHATGLM3, GLM4], ids=lambda family: family.name)
@MANY
@given(TEXTS)
def test_texts_come_back_from_their_ids(family, text):
    ids = plain_encode(family, text)
    wanted = text if family is GLM4 else text.replace("\u2581", " ")
    assert fast(family).decode(ids) == wanted
    spelled = chat(family).vocabulary.bytes_of(ids)
    assert spelled.removeprefix(b" " if family is CHATGLM3 else b"") == wanted.encode()


def test_every_rank_of_glm_4_has_its_bytes():
    tokens = chat(GLM4).vocabulary.tokens
    assert {token: id_ for id_, token in enumerate(tokens) if token is not None} == ranks()
    assert tokens[151329:] == (None,) * 14


@pytest.mark.parametrize("family", [CHATGLM2, CHATGLM3], ids=lambda family: family.name)
def test_every_piece_of_chatglm_has_its_bytes(family):
    tokens = chat(family).vocabulary.tokens
    assert tokens[:3] == (None, None, None)
    assert tokens[3:259] == tuple(bytes([byte]) for byte in range(256))
    spelled = tuple(pieces().id_to_piece(id_).replace("\u2581", " ").encode() for id_ in range(259, 64789))
    assert tokens[259:64789] == spelled
    assert tokens[64789:] == (None,) * len(family.specials)


CONTENTS = st.lists(TEXTS, min_size=1, max_size=4)


@pytest.mark.parametrize("family", [CHATGLM3, GLM4], ids=lambda family: family.name)
@settings(deadline=None, max_examples=100)
@given(CONTENTS, st.booleans())
def test_conversations_are_built_message_by_message_and_text_stays_text(family, contents, has_system):
    roles = ["system"] * has_system + ["user", "assistant"] * len(contents)
    messages = [ChatMessage(role, content) for role, content in zip(roles, contents, strict=False)]
    special = dict(zip(family.specials, range(family.first_special, family.first_special + 20), strict=False))
    wanted = [special["[gMASK]"], special["<sop>"]]
    for message in messages:
        wanted += [special[f"<|{message.role}|>"], *published_encode(family, "\n")]
        wanted += published_encode(family, message.content)
    opening = [] if messages[-1].role == "assistant" else [special["<|assistant|>"]]
    assert chat(family).encode(messages) == wanted + opening


@settings(deadline=None, max_examples=100)
@given(CONTENTS)
def test_chatglm_2_gets_its_rounds_as_one_text(contents):
    contents = [content.replace("[", "(").replace("<", "(") for content in contents]
    contents = contents if len(contents) % 2 else contents[:-1]
    roles = ["user", "assistant"] * len(contents)
    messages = [ChatMessage(role, content) for role, content in zip(roles, contents, strict=False)]
    prompt = ""
    for number, question in enumerate(contents[::2]):
        prompt += f"[Round {number + 1}]\n\n问：{question}\n\n答："
        prompt += "".join(answer + "\n\n" for answer in contents[2 * number + 1 : 2 * number + 2])
    assert chat(CHATGLM2).encode(messages) == [64790, 64792, *pieces().encode(prompt)]


def test_chatglm_2_goes_on_with_a_begun_answer():
    messages = [ChatMessage("user", "你好"), ChatMessage("assistant", "你"), ChatMessage("user", "谁？")]
    prompt = "[Round 1]\n\n问：你好\n\n答：你\n\n[Round 2]\n\n问：谁？\n\n答：我是 "
    begun = [*messages, ChatMessage("assistant", "我是 ")]
    assert chat(CHATGLM2).encode(begun) == [64790, 64792, *pieces().encode(prompt)]


def test_chatglm_2_hears_a_system_message_before_the_rounds():
    messages = [ChatMessage("system", "只说真话。"), ChatMessage("user", "你好")]
    text = fast(CHATGLM2).decode(chat(CHATGLM2).encode(messages)[2:])
    assert text == "只说真话。\n\n[Round 1]\n\n问：你好\n\n答："


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_no_message_can_speak_for_another_role(family):
    spoken = "".join(family.specials) + "</s><unk><|user|><|assistant|>"
    hostile = chat(family).encode([ChatMessage("user", spoken)])
    honest = chat(family).encode([ChatMessage("user", "好")])
    specials = set(range(family.first_special, family.first_special + 20)) | set(family.end_ids)
    assert [id_ for id_ in hostile if id_ in specials] == [id_ for id_ in honest if id_ in specials]
    assert spoken in fast(family).decode(hostile)


def test_a_checkpoint_may_add_special_tokens_behind_those_of_its_family():
    files = folder("chatglm3")
    further = {64792: "sop", 64798: "<|tool|>", 64799: "<|end|>"}
    tokenizer = build_tokenizer(files / "tokenizer.model", CHATGLM3, further)
    assert tokenizer.convert_tokens_to_ids(["<sop>", "<|tool|>", "<|end|>"]) == [64792, 64798, 64799]


@pytest.mark.parametrize("further", [{64799: "<|tool|>"}, {64798: "the"}, {64798: "<|user|>"}])
def test_a_special_token_that_cannot_have_its_id_is_refused(further):
    with pytest.raises(UnsupportedCheckpoint, match="cannot have the id"):
        build_tokenizer(folder("chatglm3") / "tokenizer.model", CHATGLM3, further)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"IQ== 0\nIg== 1\n", r"tokenizer\.model holds 2 tokens; GLM-4's holds 151329"),
        (b"IQ== 0\nIg== 2\n", "its ranks are not 0, 1, 2"),
        (b"IQ== 0\nIQ== 1\n", "its ranks are not 0, 1, 2"),
        (b"IQ== 0\nIg==\n", "damaged"),
        (b"IQ== 0\n!! 1\n", "damaged"),
        (b"IQ== 0\nIg== one\n", "damaged"),
    ],
)
def test_ranks_that_are_not_glm_4_s_are_refused(tmp_path, text, complaint):
    (tmp_path / "tokenizer.model").write_bytes(text)
    with pytest.raises(UnsupportedCheckpoint, match=complaint):
        build_tokenizer(tmp_path / "tokenizer.model", GLM4, {})


@pytest.mark.parametrize("text", [b"", b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02", b"\xff" * 40])
def test_a_file_that_is_no_sentencepiece_model_is_refused(tmp_path, text):
    (tmp_path / "tokenizer.model").write_bytes(text)
    with pytest.raises(UnsupportedCheckpoint, match=r"tokenizer\.model"):
        build_tokenizer(tmp_path / "tokenizer.model", CHATGLM3, {})


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_another_sentencepiece_model_is_refused(tmp_path, kind):
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the dog ran after the cat\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=300,
        model_type=kind,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(UnsupportedCheckpoint, match="is not of ChatGLM's kind"):
        build_tokenizer(tmp_path / "tokenizer.model", CHATGLM3, {})
