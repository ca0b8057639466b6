import json

import pytest

from contract import ChatMessage, Completion, OutputError, PromptTooLong, Sampling, UpstreamDown
from workers.upstream.kinds import KINDS, OPENAI, PLAIN, kind_of
from workers.upstream.openai_wire import chat_body, read_chunk, read_models
from workers.upstream.telling import Telling

MESSAGES = [ChatMessage("user", "hi")]


def body(kind, **sampling):
    return chat_body(kind, "m", MESSAGES, Sampling(**sampling), {})


def test_a_body_tells_everything_that_the_server_has_other_defaults_for():
    assert body(KINDS["vllm"], temperature=0.5, seed=7) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "min_tokens": 0,
        "ignore_eos": False,
        "seed": 7,
    }


def test_each_kind_has_its_own_words():
    assert body(KINDS["sglang"])["top_k"] == -1
    assert body(KINDS["sglang"], top_k=5)["top_k"] == 5
    llama = body(KINDS["llamacpp"], repetition_penalty=1.5, seed=2**40 + 3)
    assert (llama["repeat_penalty"], llama["repeat_last_n"], llama["seed"]) == (1.5, 131_072, 3)
    assert body(OPENAI, max_tokens=9)["max_completion_tokens"] == 9
    assert body(PLAIN, max_tokens=9)["max_tokens"] == 9
    assert not {"top_k", "min_p", "ignore_eos"} & body(PLAIN).keys()


def test_what_is_asked_for_is_told():
    told = body(KINDS["vllm"], stop=("a", "b"), choices=3, logprobs=2, logit_bias={5: -1.5})
    assert (told["stop"], told["n"], told["logprobs"], told["top_logprobs"]) == (["a", "b"], 3, True, 2)
    assert told["logit_bias"] == {"5": -1.5}
    assert body(PLAIN, stop=("a", "b", "c", "d", "e"))["stop"] == ["a", "b", "c", "d"]


def test_an_answer_that_has_begun_goes_on_where_the_server_can():
    begun = [*MESSAGES, ChatMessage("assistant", "once")]
    told = chat_body(KINDS["vllm"], "m", begun, Sampling(), {})
    assert (told["add_generation_prompt"], told["continue_final_message"]) == (False, True)
    assert "continue_final_message" not in body(KINDS["vllm"])


@pytest.mark.parametrize("kind", [*KINDS.values(), PLAIN, OPENAI], ids=lambda kind: kind.name)
def test_every_field_of_sampling_is_told_emulated_or_named_as_impossible(kind):
    for name in kind.cannot_sample:
        assert name not in kind.names
    told = set(kind.names) | set(kind.cannot_sample) | {"choices", "stop"}
    assert told == set(Sampling.__struct_fields__)


def test_a_kind_is_known_by_what_its_models_say():
    assert kind_of("vllm").name == "vllm"
    assert kind_of("library").name == "ollama"
    assert kind_of("system") is OPENAI
    assert kind_of("somebody") is PLAIN


def test_models_tell_their_context_each_in_its_way():
    listed = [
        {"id": "a", "owned_by": "vllm", "max_model_len": 512},
        {"id": "b", "owned_by": "llamacpp", "meta": {"n_ctx": 1024}},
        {"id": "c", "meta": None},
    ]
    assert [one.context_tokens for one in read_models({"data": listed})] == [512, 1024, None]
    for wrong in (None, [], {}, {"data": {}}, {"data": [{"name": "a"}]}):
        with pytest.raises(OutputError):
            read_models(wrong)


def hear(*chunks, **sampling):
    telling = Telling(Sampling(**sampling))
    tokens = [token for said in chunks for token in telling.hear(read_chunk(json.dumps(said).encode()))]
    return tokens, telling


def said(text=None, reason=None, index=0, **fields):
    return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": reason, **fields}]}


def test_a_stream_becomes_tokens_and_an_ending():
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
    tokens, telling = hear(said("a"), said("b"), said(reason="length"), {"choices": [], "usage": usage})
    assert [(token.index, token.ids, token.text) for token in tokens] == [(0, (), "a"), (0, (), "b")]
    ended = telling.end()
    assert (ended.reasons, ended.usage.prompt_tokens, ended.usage.cached_tokens) == (("length",), 5, 3)


def test_choices_come_mixed():
    tokens, telling = hear(
        said("a", index=1), said("b"), said(reason="stop"), said("c", "stop", index=1), choices=2
    )
    assert [(token.choice, token.text) for token in tokens] == [(1, "a"), (0, "b"), (1, "c")]
    assert telling.end().reasons == ("stop", "stop")


def test_thinking_is_progress_without_text():
    tokens, _ = hear({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
    assert tokens == []
    tokens, _ = hear({"choices": [{"delta": {"reasoning_content": "hm"}}]})
    assert [token.is_empty for token in tokens] == [True]


def test_a_stop_string_that_the_server_ignores_cuts_here():
    tokens, telling = hear(said("one st"), said("op two"), stop=("stop",))
    assert "".join(token.text for token in tokens) == "one "
    assert telling.is_cut
    assert telling.end().reason == "stop"


def test_log_probabilities_come_with_the_text_that_they_belong_to():
    def spelled(token):
        return {
            "content": [{"token": token, "logprob": -0.5, "top_logprobs": [{"token": "x", "logprob": -1}]}]
        }

    tokens, _ = hear(
        said("a<", logprobs=spelled("a<")), said("b", "stop", logprobs=spelled("b")), stop=("<<",)
    )
    assert [(token.text, [one.token for one in token.logprobs]) for token in tokens] == [
        ("a", [b"a<"]),
        ("<b", [b"b"]),
    ]
    assert tokens[0].logprobs[0].id is None
    assert tokens[0].logprobs[0].top[0].token == b"x"


def test_a_stream_without_an_end_broke_off():
    with pytest.raises(UpstreamDown, match="broke off"):
        hear(said("a"))[1].end()
    with pytest.raises(UpstreamDown, match="broke off"):
        hear(said("a", "stop"), choices=2)[1].end()


@pytest.mark.parametrize("reason", ["content_filter", "tool_calls", "abort"])
def test_an_answer_that_was_withheld_is_none(reason):
    with pytest.raises(OutputError, match=reason):
        hear(said("a", reason))


def test_an_error_in_the_stream_is_what_it_says():
    with pytest.raises(PromptTooLong):
        hear({"error": {"message": "too long", "code": "context_length_exceeded"}})
    with pytest.raises(UpstreamDown, match="out of memory"):
        hear({"error": {"message": "out of memory", "type": "server_error"}})
    with pytest.raises(UpstreamDown, match="does not say why"):
        hear({"error": 5})


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"[]", b'{"choices": 5}', b'{"choices": [{"delta": 5}]}', b"\xff", b"[" * 5000]
)
def test_garbage_is_no_chunk(data):
    with pytest.raises(OutputError, match=r"not OpenAI's"):
        read_chunk(data)


def test_a_choice_that_nobody_asked_for_is_refused():
    with pytest.raises(OutputError, match="choice 3"):
        hear(said("a", index=3))
    with pytest.raises(OutputError, match="choice -1"):
        hear(said("a", index=-1))


def test_what_comes_behind_the_end_of_a_choice_is_not_told():
    tokens, telling = hear(said("a", "stop"), said("b"))
    assert [token.text for token in tokens] == ["a"]
    assert isinstance(telling.end(), Completion)
