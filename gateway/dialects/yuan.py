"""The protocols of YuanChat's server (POST /sse/subscribe) and of Yuan-2.0's (PUT /yuan)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from contract import MAX_TOKENS_LIMIT, YUAN_MARKS, Chat, ChatMessage, Failed, InvalidRequest, Sampling, Task
from gateway.dialects.strict import parse_body, show
from gateway.limits import Limits

#: What a person reads in place of an answer, in both languages that the page's users read.
NO_ANSWER = "没有得到回答 (no answer): "

#: Tokens of an answer if nobody says how many: what the inference server's own start scripts say.
USUAL_TOKENS = 1024

#: The inference server's numbers for what failed: the input, or the generation.
INPUT_FAILED = 1
GENERATION_FAILED = 2

#: The highest temperature that models here take; that server's own limit is 100.
MOST_TEMPERATURE = 2


class Turn(Struct, frozen=True, forbid_unknown_fields=True):
    """A question, and its answer if it has one."""

    question: str
    answer: str


class SubscribeBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /sse/subscribe; 0 switches a limit or a filter off.

    The last five are of the page's search on the web, and mean something only where that is on.
    """

    messages: Annotated[tuple[Turn, ...], Meta(min_length=1)]
    response_length: Annotated[int, Meta(ge=0, le=8000)] = 5000
    temperature: Annotated[float, Meta(ge=0, le=1)] = 0.6
    top_p: Annotated[float, Meta(ge=0, le=1)] = 0.95
    top_k: Annotated[int, Meta(ge=0, le=10)] = 0
    stream: bool = False
    browser_flag: Literal[False] = False
    retrieve_topk: Any = None
    template: Any = None
    access_key: Any = None
    embeddings_model_path: Any = None


class Ques(Struct, frozen=True, forbid_unknown_fields=True):
    """One question of PUT /yuan, in the model's own spelling or any other."""

    ques: str
    id: str | int = "0"


class InferBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PUT /yuan. `do_sample` false takes the most probable tokens."""

    ques_list: Annotated[tuple[Ques, ...], Meta(min_length=1, max_length=128)]
    tokens_to_generate: Annotated[int, Meta(ge=1, le=MAX_TOKENS_LIMIT)] = USUAL_TOKENS
    temperature: Annotated[float, Meta(gt=0, le=MOST_TEMPERATURE)] = 1.0
    top_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    top_k: Annotated[int, Meta(ge=0, le=1000)] = 0
    do_sample: bool = True


class Asked(NamedTuple):
    """A question of PUT /yuan: the name under which its answer is given, and the task."""

    id: str
    task: Task


def parse_subscribe(body: bytes, limits: Limits) -> tuple[Task, bool]:
    """Return the task, and whether the caller wants to see the answer grow. Raises InvalidRequest."""
    asked = parse_body(body, SubscribeBody, max_depth=limits.json_depth)
    messages = _messages(asked.messages, limits)
    top_p, top_k = _one_filter(asked.top_p, asked.top_k)
    sampling = Sampling(
        temperature=asked.temperature,
        top_p=top_p or 1.0,
        top_k=top_k,
        max_tokens=asked.response_length or None,
    )
    return Task("chat", Chat(messages, drops_history=True), sampling), asked.stream


def parse_infer(body: bytes, limits: Limits) -> list[Asked]:
    """Return the questions. Raises InvalidRequest."""
    asked = parse_body(body, InferBody, max_depth=limits.json_depth)
    sampling = Sampling(
        temperature=asked.temperature if asked.do_sample else 0.0,
        top_p=asked.top_p or 1.0,
        top_k=asked.top_k,
        max_tokens=asked.tokens_to_generate,
    )
    texts = [_question(ques.ques) for ques in asked.ques_list]
    for place, text in enumerate(texts):
        if not text.strip():
            raise InvalidRequest(f"ques_list[{place}].ques: must not be blank")
    _check_length("ques_list", texts, limits)
    return [
        Asked(str(ques.id), Task("chat", Chat((ChatMessage("user", text),)), sampling))
        for ques, text in zip(asked.ques_list, texts, strict=True)
    ]


def clean(text: str) -> str:
    """Return what the marks of Yuan models in a text mean."""
    for mark, meaning in YUAN_MARKS.items():
        text = text.replace(mark, meaning)
    return text


def render_answer(text: str, seconds: float) -> bytes:
    """Return the event that holds the whole answer so far; `seconds` are those since 1970."""
    return _event(text, seconds, error_code="", error_message="")


def render_failed_event(failed: Failed, seconds: float) -> bytes:
    """Return a failure as an event that the page shows: it waits for ever for one whose flag is true."""
    text = f"{NO_ANSWER}{failed.message}"
    return _event(text, seconds, error_code=failed.code, error_message=failed.message)


def render_ping(seconds: float) -> bytes:
    """Return the comment that says that the model works."""
    return f": ping - {datetime.fromtimestamp(seconds, UTC)}\r\n\r\n".encode()


def render_output(answers: Sequence[tuple[str, str]]) -> bytes:
    """Return the answers of PUT /yuan, each under its question's name."""
    output = [{"id": name, "ans": text} for name, text in answers]
    return msgspec.json.encode(
        {
            "flag": True,
            "errCode": "0",
            "errMessage": "success",
            "exceptionMsg": "",
            "resData": {"output": output},
        }
    )


def render_failed(failed: Failed) -> dict[str, Any]:
    """Return a failure of PUT /yuan; its clients read either of the two messages."""
    return {
        "flag": False,
        "errCode": INPUT_FAILED if failed.status < 500 else GENERATION_FAILED,
        "errMessage": failed.message,
        "successMessage": "",
        "exceptionMsg": failed.message,
        "resData": {},
    }


def _messages(turns: Sequence[Turn], limits: Limits) -> tuple[ChatMessage, ...]:
    """A turn that lacks its question or its answer (it failed, say) tells the model nothing."""
    *earlier, last = turns
    place = f"messages[{len(earlier)}]"
    if last.answer:
        raise InvalidRequest(f'{place}.answer: must be "" in the last entry, got {show(last.answer)}')
    if not last.question.strip():
        raise InvalidRequest(f"{place}.question: must not be blank")
    messages = [
        message
        for turn in earlier
        if turn.question.strip() and turn.answer.strip()
        for message in (ChatMessage("user", turn.question), ChatMessage("assistant", turn.answer))
    ]
    messages.append(ChatMessage("user", last.question))
    if len(messages) > limits.messages:
        raise InvalidRequest(f"messages: must have at most {limits.messages // 2} entries, got {len(turns)}")
    _check_length("messages", [message.content for message in messages], limits)
    return tuple(messages)


def _check_length(name: str, texts: Sequence[str], limits: Limits) -> None:
    characters = sum(len(text) for text in texts)
    if characters > limits.prompt_characters:
        rule = f"must hold at most {limits.prompt_characters} characters together"
        raise InvalidRequest(f"{name}: {rule}, got {characters}")


def _one_filter(top_p: float, top_k: int) -> tuple[float, int]:
    """The two exclude each other, but the page sends both: it relies on which one wins."""
    if top_k > 1:
        return 0.0, top_k
    return (top_p, 0) if top_p > 0 else (top_p, top_k)


def _question(ques: str) -> str:
    """Take off the spelling in which clients of a Yuan model write their prompts."""
    return ques.removesuffix("<sep>").replace("<n>", "\n")


def _event(text: str, seconds: float, *, error_code: str, error_message: str) -> bytes:
    data = {
        "flag": True,
        "errCode": error_code,
        "errMessage": error_message,
        "exceptionMsg": error_message,
        "resData": {"message": text, "time": int(seconds * 1000)},
    }
    return b"data: %s\r\n\r\n" % msgspec.json.encode(data)
