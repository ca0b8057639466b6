"""Rows and batches: what a token sees, where it stands, and what is learned from it."""

import json
from random import Random

import pytest

from demo.catalogues import Catalogue, Catalogues, Wish, answer_pieces, render_prompt
from demo.conversations import Conversation, Conversations, Exchange
from demo.packing import Packer
from demo.tokenizer import train_tokenizer
from demo.topics import load_topics

torch = pytest.importorskip("torch")

from demo.batches import IGNORED, collate  # noqa: E402

TOPICS = load_topics()
CONVERSATIONS = Conversations(TOPICS)
CATALOGUE = Catalogue(("微积分入门", "法语之旅", "微积分的世界"), (1, 31, 1))


@pytest.fixture(scope="module")
def packer():
    return Packer(train_tokenizer(TOPICS, CONVERSATIONS), len(TOPICS))


@pytest.mark.parametrize("titles", [[], ["一"], ["一", 'with "quotes" and \\', "三"]])
def test_the_pieces_of_an_answer_join_to_its_json(titles):
    wanted = json.dumps({str(number): title for number, title in enumerate(titles, 1)}, ensure_ascii=False)
    assert "".join(answer_pieces(titles)) == wanted


def test_an_answer_is_encoded_piece_by_piece(packer):
    pieces = answer_pieces(CATALOGUE.titles_on(1))
    wanted = [token for piece in pieces for token in packer.encode(piece)]
    assert list(packer.answer(CATALOGUE.titles, CATALOGUE.titles_on(1)).ids[:-1]) == wanted


def test_decisions_stand_where_the_titles_leave_a_choice(packer):
    answer = packer.answer(("微积分入门", "法语之旅"), ("法语之旅", "微积分入门"))
    open_tokens = [packer.encode('{"1": "')[0], packer.encode("法语之旅")[0], packer.encode('", "2": "')[0]]
    assert [
        token for token, decided in zip(answer.ids, answer.decisions, strict=True) if decided
    ] == open_tokens


def test_prefix_and_branch_are_the_tokens_of_the_whole_prompt(packer):
    random = Random(4)
    catalogues = Catalogues(TOPICS, CONVERSATIONS)
    for size in (1, 5, 30):
        catalogue = catalogues.make(size, random)
        wish = catalogues.wish(catalogue, random)
        prompt = f"[gMASK]<sop><|user|>\n{render_prompt(catalogue.titles, wish.text)}<|assistant|>\n"
        row = packer.catalogue_row(catalogue)
        branch = packer.wish_branch(catalogue, row, wish)
        assert row.prefix + branch.read == packer.encode(prompt)


def test_lines_know_their_topic_and_how_many_came_before(packer):
    first, second, third = packer.catalogue_row(CATALOGUE).lines
    assert [(line.topic, line.ordinal) for line in (first, second, third)] == [(1, 0), (31, 0), (1, 1)]
    assert [line.behind for line in (first, second, third)] == [0, 0, first.position]


def test_a_branch_sees_the_prefix_and_itself_only(packer):
    row = packer.catalogue_row(CATALOGUE)
    row.branches = [packer.wish_branch(CATALOGUE, row, Wish(text, 1)) for text in ("求导", "链式法则")]
    batch = collate([row], 256)
    visible = batch.mask[0, 0] == 0
    prefix, first = len(row.prefix), len(row.branches[0])
    in_second = prefix + first + 2
    assert visible[in_second, :prefix].all()
    assert not visible[in_second, prefix : prefix + first].any()
    assert visible[in_second, prefix + first : in_second + 1].all()
    assert not visible[in_second, in_second + 1 :].any()
    assert not visible[prefix - 1, prefix:].any()


def test_positions_start_again_after_the_prefix(packer):
    row = packer.catalogue_row(CATALOGUE)
    row.branches = [packer.wish_branch(CATALOGUE, row, Wish(text, 1)) for text in ("求导", "链式法则")]
    positions = collate([row], 256).positions[0].tolist()
    prefix, first = len(row.prefix), len(row.branches[0])
    assert positions[: prefix + first] == list(range(prefix + first))
    assert positions[prefix + first] == prefix


def test_only_answers_are_learned_and_each_from_the_token_before_it(packer):
    row = packer.chat_row()
    branch = packer.chat_branch(Conversation((), Exchange("你好", "你好！")))
    row.branches = [branch]
    targets = collate([row], 256).targets[0]
    first = len(row.prefix) + len(branch.read) - 1
    assert tuple(targets[first : first + len(branch.learned)].tolist()) == branch.learned
    assert int((targets != IGNORED).sum()) == len(branch.learned)


def test_a_row_that_is_too_long_is_refused(packer):
    with pytest.raises(ValueError, match="does not fit the length 8"):
        collate([packer.catalogue_row(CATALOGUE)], 8)


def test_guides_point_at_the_title_and_at_the_token_that_is_copied(packer):
    row = packer.catalogue_row(CATALOGUE)
    branch = packer.wish_branch(CATALOGUE, row, Wish("求导", 1))
    copied = [
        (token, place)
        for token, place in zip(branch.learned, branch.copies, strict=True)
        if place is not None
    ]
    assert all(row.prefix[place] == token for token, place in copied)
    assert len(copied) == sum(len(packer.encode(title)) for title in CATALOGUE.titles_on(1))
    assert [branch.ends[0], branch.ends[-1]] == [row.lines[0].position, 0]
    assert [branch.behinds[0], branch.behinds[-1]] == [0, row.lines[2].position]
    assert row.lines[2].position in branch.ends
    assert row.lines[1].position not in branch.ends
