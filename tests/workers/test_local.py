"""A checkpoint in a folder: it loads and answers, or one line says why it cannot."""

import json
import logging
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest

from contract import CannotDo, ChatMessage, ChooseRows, JsonObject, PromptTooLong, Sampling
from engine.checkpoints import original
from tests.engine.parts import assert_empty, read
from tests.tiny_checkpoints import write_checkpoint
from workers.errors import CannotLoad
from workers.local import fingerprint, load_local_model
from workers.placement import Placement

HELLO = [ChatMessage("user", "ab 中😀 <|end|>")]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A whole checkpoint; not to be written to."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A checkpoint to break."""
    return shutil.copytree(checkpoint, tmp_path / "model")


@contextmanager
def loaded(path, **options):
    placement = Placement(**{"device": "cpu", "threads": 1, "capacity": 2, **options})
    model = load_local_model(path, "tiny", placement)
    try:
        yield model
        assert_empty(model.engine)
    finally:
        model.close()


def refusal(path):
    """Return the one line that says why the folder cannot be loaded."""
    with pytest.raises(CannotLoad) as refused, loaded(path):
        pass
    line = str(refused.value)
    assert line.isprintable()
    assert str(path) in line
    assert len(line) < 500
    return line


def change(path, **fields):
    """Change fields of a JSON file; None takes a field away."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content.update(fields)
    content = {name: value for name, value in content.items() if value is not None}
    path.write_text(json.dumps(content), encoding="utf-8")


def test_a_checkpoint_loads_and_answers(checkpoint):
    with loaded(checkpoint) as model:
        card = model.card
        assert (card.name, card.context_tokens, card.fingerprint) == ("tiny", 512, fingerprint(checkpoint))
        answer = read(model.generate(HELLO, Sampling(temperature=0, max_tokens=8)))
        again = read(model.generate(HELLO, Sampling(temperature=0, max_tokens=8)))
    assert answer.ids == again.ids
    assert 0 < answer.completion.usage.prompt_tokens < 60
    assert again.completion.usage.cached_tokens > 0


def test_a_checkpoint_answers_with_rows(checkpoint):
    with loaded(checkpoint) as model:
        form = ChooseRows(("光学", "光学：光的性质", 'a "b" \\'), 2, none_allowed=False)
        answer = read(model.generate(HELLO, Sampling(temperature=2, seed=4), form))
    assert set(json.loads(answer.text).values()) <= set(form.values)


def test_the_checkpoints_end_token_ends_an_answer(folder):
    with loaded(folder) as model:
        first = read(model.generate(HELLO, Sampling(temperature=0, max_tokens=8))).ids
    for where in ("generation_config.json", "config.json"):
        change(folder / where, eos_token_id=[first[2]])
    with loaded(folder) as model:
        answer = read(model.generate(HELLO, Sampling(temperature=0, max_tokens=8)))
    assert answer.ids == first[: first.index(first[2])]
    assert answer.completion.reason == "stop"


def test_the_tokenizers_own_end_token_ends_an_answer_too(folder):
    for where in ("generation_config.json", "config.json"):
        change(folder / where, eos_token_id=[5])
    with loaded(folder) as model:
        end = model._tokenizer.end_id
        answer = read(model.generate(HELLO, Sampling(temperature=0, max_tokens=8, logit_bias={end: 100.0})))
    assert end not in (None, 5)
    assert (answer.ids, answer.completion.reason) == ([], "stop")


def test_a_model_that_does_not_fit_is_refused_with_what_would(checkpoint):
    with pytest.raises(CannotLoad) as refused, loaded(checkpoint, memory_bytes=1_000_000, context_tokens=500):
        pass
    line = str(refused.value)
    assert line.startswith(f"the model in {checkpoint} does not fit: tier ")
    assert "it may take 1 MB (--memory 1 MB)" in line


def test_the_cache_stays_within_the_memory_that_is_allowed(checkpoint):
    with loaded(checkpoint, capacity=64) as roomy:
        unlimited = roomy.engine.executor.cache_blocks
    with loaded(checkpoint, capacity=64, memory_bytes=4_000_000) as tight:
        executor = tight.engine.executor
    assert executor.cache_blocks < unlimited
    assert (executor.cache_blocks + 1) * executor.block_tokens * executor.bytes_per_token < 4_000_000


def test_answers_in_json_are_prepared_before_the_model_is_ready(checkpoint, caplog):
    with caplog.at_level(logging.INFO, logger="engine"), loaded(checkpoint) as model:
        answer = read(model.generate(HELLO, Sampling(temperature=0, max_tokens=60), JsonObject()))
    assert not any("not possible" in message for message in caplog.messages)
    assert answer.text.startswith("{")


def test_the_context_is_the_checkpoints_own_or_what_is_wished_below_it(checkpoint):
    with loaded(checkpoint, context_tokens=48) as model:
        assert model.card.context_tokens == 48
        with pytest.raises(PromptTooLong):
            next(model.generate([ChatMessage("user", "x" * 60)], Sampling()))
    with loaded(checkpoint, context_tokens=100_000) as model:
        assert model.card.context_tokens == 512


def test_a_model_in_16_bits_answers_too(folder):
    change(folder / "config.json", dtype="bfloat16")
    with loaded(folder) as model:
        assert len(read(model.generate(HELLO, Sampling(temperature=0, max_tokens=3))).ids) == 3


def test_a_conversation_that_the_template_refuses_is_no_fault_of_the_model(checkpoint):
    (template := checkpoint.parent / "strict").mkdir(exist_ok=True)
    shutil.copytree(checkpoint, template, dirs_exist_ok=True)
    strict = "{% if messages|length > 1 %}{{ raise_exception('one at a time') }}{% endif %}<|user|>"
    (template / "chat_template.jinja").write_text(strict, encoding="utf-8")
    with loaded(template) as model, pytest.raises(CannotDo, match="one at a time"):
        next(model.generate(HELLO * 2, Sampling()))


def without(*names):
    def apply(folder):
        for name in names:
            (folder / name).unlink()

    return apply


def containing(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def configured(**fields):
    return lambda folder: change(folder / "config.json", **fields)


def cut_short(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


SLIDING = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0, "layer_types": None}

BREAKAGES = {
    "no folder": (shutil.rmtree, "no such folder"),
    "no config": (without("config.json"), "config.json"),
    "config is no JSON": (containing("config.json", b"{"), "config.json"),
    "config is no object": (containing("config.json", b"[]"), ""),
    "config has a wrong type": (configured(num_hidden_layers="two"), "num_hidden_layers"),
    "config has no heads": (configured(num_attention_heads=0), ""),
    "no tokenizer": (without("tokenizer.json", "tokenizer_config.json"), "vocabulary"),
    "no tokenizer.json": (without("tokenizer.json"), "vocabulary"),
    "tokenizer is no JSON": (containing("tokenizer.json", b"{"), ""),
    "tokenizer is empty": (containing("tokenizer.json", b"{}"), ""),
    "no chat template": (without("chat_template.jinja"), "chat template"),
    "chat template is broken": (containing("chat_template.jinja", b"{% if %}"), "chat template"),
    "unknown architecture": (configured(model_type="nonsense"), "nonsense"),
    "another architecture's weights": (configured(model_type="bert"), "lack"),
    "sliding window": (configured(**SLIDING), "sliding_window"),
    "quantized by a library that is absent": (
        configured(quantization_config={"quant_method": "gptq", "bits": 4}),
        "",
    ),
    "a layer is missing": (configured(num_hidden_layers=3, layer_types=None), "model.layers.2"),
    "weights of another size": (configured(hidden_size=64), "mismatched"),
    "fewer weights than ids": (configured(vocab_size=100), ""),
    "no weights": (without("model.safetensors"), "model.safetensors"),
    "weights are pickled": (pickled, "safetensors are needed"),
    "weights are nonsense": (containing("model.safetensors", b"nonsense" * 99), ""),
    "weights are empty": (containing("model.safetensors", b""), ""),
    "weights are cut short": (cut_short, ""),
}


@pytest.mark.parametrize(("spoil", "complaint"), BREAKAGES.values(), ids=BREAKAGES)
def test_what_cannot_be_loaded_says_so_in_one_line(folder, spoil, complaint):
    spoil(folder)
    assert complaint in refusal(folder)


def test_the_details_of_a_refusal_are_in_the_log(folder, caplog):
    cut_short(folder)
    with caplog.at_level(logging.DEBUG, logger="workers.local"):
        refusal(folder)
    assert "Traceback" in caplog.text


CODE = """
from pathlib import Path
from transformers import Qwen2Config, Qwen2ForCausalLM, PreTrainedTokenizerFast
Path(__file__).with_name("was_run").touch()
Path({mark!r}).touch()
class Config(Qwen2Config): model_type = "own"
class Model(Qwen2ForCausalLM): pass
class Tokenizer(PreTrainedTokenizerFast): pass
"""


def bring_code(folder, mark, model_type):
    (folder / "own.py").write_text(CODE.format(mark=str(mark)), encoding="utf-8")
    classes = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    change(folder / "config.json", auto_map=classes, model_type=model_type)
    tokenizer = {"AutoTokenizer": ["own.Tokenizer", "own.Tokenizer"]}
    change(folder / "tokenizer_config.json", auto_map=tokenizer, tokenizer_class="Tokenizer")


def test_code_that_a_checkpoint_brings_along_is_never_run(folder, tmp_path):
    mark = tmp_path / "was_run"
    bring_code(folder, mark, "own")
    refusal(folder)
    bring_code(folder, mark, original.MODEL_TYPE)
    refusal(folder)
    bring_code(folder, mark, "qwen2")
    with loaded(folder) as model:
        assert len(read(model.generate(HELLO, Sampling(temperature=0, max_tokens=3))).ids) == 3
    assert not mark.exists()
    assert not (folder / "was_run").exists()


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"]
)
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_the_fingerprint_differs_where_a_byte_does(checkpoint, folder, name, place):
    content = bytearray((folder / name).read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    (folder / name).write_bytes(content)
    assert fingerprint(folder) != fingerprint(checkpoint)


def test_the_fingerprint_is_of_the_content_not_of_the_place(checkpoint, folder):
    (folder / "README.md").write_text("A model.", encoding="utf-8")
    assert fingerprint(folder) == fingerprint(checkpoint)
    assert fingerprint(folder, "large") == fingerprint(folder)
    assert len({fingerprint(folder, tier) for tier in ("large", "medium", "small")}) == 3
    assert len(fingerprint(folder)) == 16
    int(fingerprint(folder), 16)


@pytest.mark.parametrize("name", ["merges.txt", "tokenizer.model", "qwen.tiktoken", "tokenizer_config.json"])
def test_the_fingerprint_knows_every_kind_of_tokenizer_file(folder, name):
    (folder / name).write_text("first", encoding="utf-8")
    first = fingerprint(folder)
    (folder / name).write_text("other", encoding="utf-8")
    assert fingerprint(folder) != first


def test_the_fingerprint_sees_both_ends_of_a_large_file(folder):
    size = 5 << 20
    prints = set()
    for place in (None, 3, size - 3):
        content = bytearray(size)
        if place is not None:
            content[place] = 1
        (folder / "model.safetensors").write_bytes(content)
        prints.add(fingerprint(folder))
    assert len(prints) == 3


def test_an_answer_that_has_begun_goes_on_as_if_the_model_had_begun_it(checkpoint):
    """Greedy answers: what follows the first characters follows them again when they are given."""
    with loaded(checkpoint) as model:
        whole = read(model.generate(HELLO, Sampling(temperature=0, max_tokens=12)))
        begun = [*HELLO, ChatMessage("assistant", "ab")]
        rest = read(model.generate(begun, Sampling(temperature=0, max_tokens=12)))
        prompt_tokens = rest.completion.usage.prompt_tokens
        assert prompt_tokens == whole.completion.usage.prompt_tokens + len(model.split_tokens("ab"))
        assert model.count_tokens(begun) == prompt_tokens
        assert model.count_tokens(HELLO) == whole.completion.usage.prompt_tokens


def test_a_text_is_split_as_the_model_reads_it(checkpoint):
    with loaded(checkpoint) as model:
        assert model.split_tokens("abc abc") == ("abc", " ", "abc")
        assert "".join(model.split_tokens("abc <|end|>")) == "abc <|end|>"
        assert "\ufffd" in model.split_tokens("文")
        assert model.split_tokens("") == ()


#: Ends while an answer is being computed that nobody reads on, and the model was never closed.
ENDS_AMID_AN_ANSWER = """
import sys
from pathlib import Path
from contract import ChatMessage, Sampling
from workers.local import load_local_model
from workers.placement import Placement
model = load_local_model(Path(sys.argv[1]), "tiny", Placement(device="cpu", threads=1, capacity=2))
answer = model.generate([ChatMessage("user", "hello")], Sampling(ignore_end=True))
while next(answer).is_empty:
    pass
"""


def test_a_process_that_forgets_to_close_its_model_ends_well(checkpoint):
    command = [sys.executable, "-c", ENDS_AMID_AN_ANSWER, str(checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
