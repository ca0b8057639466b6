"""Tokenizers in folders of their own, as they lie beside a compiled net: without weights, or a config."""

import json
import shutil

import pytest

from contract import ChatMessage
from engine.checkpoints.families import CHATGLM3, GLM4
from engine.checkpoints.tokenizers import load_tokenizer
from tests.engine.original_checkpoints import TOKENIZER_FOLDERS
from tests.tiny_checkpoints import byte_level_tokenizer
from tests.vocabularies import folder


@pytest.mark.parametrize("family", [CHATGLM3, GLM4], ids=lambda family: family.name)
def test_an_original_tokenizer_needs_no_config(family, tmp_path):
    path = tmp_path / ("chatglm3_token_config" if family is CHATGLM3 else "token_config")
    path.mkdir()
    shutil.copy(folder(TOKENIZER_FOLDERS[family.name]) / "tokenizer.model", path)
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ChatGLMTokenizer"}))
    tokenizer, end_ids = load_tokenizer(path)
    assert end_ids == frozenset(family.end_ids)
    assert tokenizer.encode([ChatMessage("user", "你好")])


def test_another_tokenizer_ends_where_it_or_its_configs_say(tmp_path):
    tokenizer = byte_level_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    end = tokenizer.eos_token_id
    assert load_tokenizer(tmp_path)[1] == {end}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2", "eos_token_id": 7}))
    assert load_tokenizer(tmp_path)[1] == {7, end}
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [8, 9]}))
    assert load_tokenizer(tmp_path)[1] == {8, 9, end}
