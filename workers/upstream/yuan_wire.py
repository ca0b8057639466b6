"""The Yuan-2.0 inference server as its client writes and reads it: prompts, bodies and answers."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from contract import (
    YUAN_MARKS,
    ChatMessage,
    InvalidRequest,
    OutputError,
    PromptTooLong,
    Sampling,
)
from workers.upstream.answers import estimated_tokens
from workers.upstream.refusals import told

#: Characters up to which a prompt takes earlier turns along, newest first: the habit of YuanChat's server.
PROMPT_CHARACTERS = 3000

#: Tokens that are left for an answer however long the prompt is guessed to be: the server knows better.
LEAST_ROOM_TOKENS = 256

#: Seeds that the server can pass on exactly: it sends them between its processes as 32 bit floats.
SEED_BITS = 24

#: The largest `top_k` that the server takes.
MOST_TOP_K = 1000

#: The server's numbers for a failure: of the input, or of the generation.
INPUT_FAILED = 1

#: What the server says when prompt and answer together are too long, spelling included.
_TOO_LONG = re.compile(r"sequ?ence length", re.IGNORECASE)

_CONTROL = re.compile(r"<(sep|eod|unk|pad|mask|n)>")
_PUNCTUATED = re.compile(r"[^\w\s]\s*\Z")


class _Turn(NamedTuple):
    question: str
    answer: str


def write_prompt(messages: Sequence[ChatMessage]) -> str:
    """Return the conversation as Yuan models know it: `question？<n>answer。<n>` …, then `question<sep>`.

    A question or answer that ends with punctuation gets no other. A system message stands before everything.
    The spelling of a control token is made ordinary text.
    """
    system = "".join(f"{_plain(one.content)}<n>" for one in messages if one.role == "system")
    *earlier, last = _turns([one for one in messages if one.role != "system"])
    history: list[str] = []
    room = PROMPT_CHARACTERS - len(last.question)
    for turn in reversed(earlier):
        written = f"{_ended(turn.question, '？')}<n>{_ended(turn.answer, '。')}<n>"
        room -= len(written)
        if room < 0:
            break
        history.insert(0, written)
    return f"{system}{''.join(history)}{last.question}<sep>"


def write_body(prompt: str, sampling: Sampling, context_tokens: int) -> dict[str, Any]:
    """Return the body of a request with one question. Raises InvalidRequest.

    Greedy is `top_k` 1 there, as 0 is no temperature; `top_p` 0 means off, and has to be where `top_k`
    is on. `do_sample` is for the server's Hugging Face variant, which is greedy without it.
    """
    if sampling.top_k > MOST_TOP_K:
        raise InvalidRequest(f"top_k: must be at most {MOST_TOP_K} for this model, got {sampling.top_k}")
    is_greedy = sampling.temperature == 0 or sampling.top_k == 1
    top_k = 1 if is_greedy else sampling.top_k
    if top_k > 1 and sampling.top_p < 1:
        raise InvalidRequest("top_p: must be 1 for this model where top_k is above 1")
    estimate = estimated_tokens([ChatMessage("user", prompt)])
    room_tokens = max(context_tokens - estimate, min(LEAST_ROOM_TOKENS, context_tokens))
    body: dict[str, Any] = {
        "ques_list": [{"id": "0", "ques": prompt}],
        "tokens_to_generate": min(sampling.max_tokens or room_tokens, room_tokens),
        "temperature": sampling.temperature or 1.0,
        "top_p": 0.0 if top_k or sampling.top_p == 1 else sampling.top_p,
        "top_k": top_k,
        "do_sample": not is_greedy,
    }
    if sampling.seed is not None:
        body["random_seed"] = sampling.seed % 2**SEED_BITS
    return body


def read_answer(answer: Any) -> str:
    """Return the text of a successful answer. Raises what a failure stands for."""
    if not isinstance(answer, dict):
        raise OutputError(f"the upstream's answer is not Yuan's: {told(answer) or answer!r:.60}")
    if answer.get("flag") is not True:
        message = told(answer.get("exceptionMsg") or answer.get("errMessage")) or "it does not say why"
        if _TOO_LONG.search(message):
            raise PromptTooLong(f"the upstream says: {message}")
        if str(answer.get("errCode")) == str(INPUT_FAILED):
            raise InvalidRequest(f"the upstream says: {message}")
        raise OutputError(f"the upstream failed: {message}")
    match answer:
        case {"resData": {"output": [{"ans": str(text)}, *_]}}:
            return clean(text)
    raise OutputError("the upstream's answer holds no text")


def clean(text: str) -> str:
    """Return what the marks in a Yuan model's text mean."""
    for mark, meaning in YUAN_MARKS.items():
        text = text.replace(mark, meaning)
    return text


def _turns(messages: Sequence[ChatMessage]) -> list[_Turn]:
    """Return questions with their answers; the last question has none yet."""
    turns: list[_Turn] = []
    for message in messages:
        text = _plain(message.content)
        if message.role == "user":
            if turns and not turns[-1].answer:
                text = f"{turns.pop().question}<n>{text}"
            turns.append(_Turn(text, ""))
        elif turns:
            question, said = turns.pop()
            turns.append(_Turn(question, f"{said}<n>{text}" if said else text))
    return turns


def _ended(text: str, mark: str) -> str:
    return text if _PUNCTUATED.search(text) else text + mark


def _plain(text: str) -> str:
    return _CONTROL.sub(r"＜\1＞", text).replace("\r\n", "\n").replace("\n", "<n>")
