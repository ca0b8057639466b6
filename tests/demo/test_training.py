"""Training: its schedule, one step of it, and what it leaves behind."""

from random import Random

import pytest
import torch
from transformers import AutoTokenizer, GlmForCausalLM

from demo.conversations import Conversations
from demo.embeddings import start_near_topics, start_with_likeness
from demo.examples import LENGTHS, Examples, row_length
from demo.network import Network, make_config, save_model
from demo.packing import Packer
from demo.tokenizer import SPECIAL_TOKENS, train_tokenizer
from demo.topics import load_topics
from demo.train import (
    LARGEST_CATALOGUE,
    SMALLEST_CATALOGUE,
    WARMUP_STEPS,
    catalogue_size,
    learning_rate,
    make_optimizers,
    parse_options,
)

TOPICS = load_topics()


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TOPICS, Conversations(TOPICS))


@pytest.fixture
def network(tokenizer):
    torch.manual_seed(1)
    return Network(make_config(tokenizer, layers=6, hidden_size=256), len(TOPICS))


def test_the_learning_rate_rises_over_steps_and_falls_over_time():
    assert learning_rate(1.0, 0, 0.0) == 1 / WARMUP_STEPS
    assert learning_rate(1.0, WARMUP_STEPS, 0.0) == 1.0
    assert learning_rate(1.0, 5000, 1.0) < 0.05


def test_catalogues_grow_while_training():
    random = Random(1)
    first = [catalogue_size(0.0, random) for _ in range(200)]
    last = [catalogue_size(1.0, random) for _ in range(200)]
    assert min(first + last) >= SMALLEST_CATALOGUE
    assert max(first) <= 8 < 50 < max(last) <= LARGEST_CATALOGUE


def test_every_catalogue_finds_a_row_it_fits_in():
    lengths = [row_length(size) for size in range(1, 200)]
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (LENGTHS[0], LENGTHS[-1])


def test_a_batch_of_any_size_fills_its_rows(tokenizer):
    examples = Examples(TOPICS, Packer(tokenizer, len(TOPICS)))
    for size in (5, 30, 64):
        batch = examples.batch(size, 1024, Random(size))
        assert batch.ids.shape[1] == row_length(size)
        assert int((batch.targets >= 0).sum()) > 50


def test_a_step_lowers_the_loss_of_its_own_batch(tokenizer, network):
    start_near_topics(network, tokenizer, TOPICS)
    start_with_likeness(network)
    batch = Examples(TOPICS, Packer(tokenizer, len(TOPICS))).batch(6, 256, Random(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = network(batch)
        before.total.backward()
        for optimizer in make_optimizers(network):
            optimizer.step()
        assert network(batch).total.item() < before.total.item()
    assert 0 <= before.decisions_right <= before.decisions


def test_what_is_saved_loads_as_a_plain_glm_that_ends_where_another_role_speaks(tokenizer, network, tmp_path):
    save_model(network, tokenizer, tmp_path)
    model = GlmForCausalLM.from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16
    ends = AutoTokenizer.from_pretrained(tmp_path).convert_ids_to_tokens(model.generation_config.eos_token_id)
    assert ends == ["<|endoftext|>", "<|user|>", "<|observation|>"]
    assert set(ends) <= set(SPECIAL_TOKENS)


def test_options_have_the_defaults_that_made_the_model():
    options = parse_options([])
    assert (options.layers, options.hidden, options.out) == (6, 256, "models/demo")
