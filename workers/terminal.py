"""A conversation with a model in a terminal: questions in, answers out as they are made, and how fast."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from contract import ChatMessage, Event, ServingError, Token, Trimmed

#: What the question and its answer stand behind; both begin after an empty line.
QUESTION = "\nQuestion: "
ANSWER = "\nAnswer: "

#: The input that ends the session.
END = "exit"

#: What Ctrl-C says where there is no answer to stop.
HOW_TO_END = f"\n({END}, or Ctrl-D, ends the session)\n"

#: Makes the assistant's next turn, and may leave out the oldest messages of the conversation.
Answer = Callable[[Sequence[ChatMessage]], Generator[Event, None, None]]


class Terminal:
    """One session: asks, answers, and remembers both, until `exit` or the end of the input.

    `read` shows a prompt and returns a line, as `input` does, and raises EOFError at the end; `write`
    shows text at once.
    """

    def __init__(
        self,
        answer: Answer,
        read: Callable[[str], str],
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._answer = answer
        self._read = read
        self._write = write
        self._clock = clock
        self._history: list[ChatMessage] = []
        self._is_reading = False
        self._is_interrupted = False

    def run(self) -> None:
        """Talk until the session ends."""
        while (question := self._next_question()) is not None:
            if question.strip():
                self._reply(ChatMessage("user", question))

    def interrupt(self) -> None:
        """Stop the answer that is being made; raises KeyboardInterrupt while a question is being typed.

        Meant for the handler of Ctrl-C, in the thread that runs the session.
        """
        if self._is_reading:
            raise KeyboardInterrupt
        self._is_interrupted = True

    def _next_question(self) -> str | None:
        """Return the next question, or None at the session's end."""
        while True:
            try:
                self._is_reading = True
                question = self._read(QUESTION)
                self._is_reading = False  # within the try: Ctrl-C before this line is about the question
            except KeyboardInterrupt:
                self._write(HOW_TO_END)
            except EOFError:
                self._write("\n")
                return None
            else:
                return None if question.strip() == END else question

    def _reply(self, question: ChatMessage) -> None:
        """Show the answer and remember it, whole or as far as it came before Ctrl-C."""
        pace = _Pace(self._clock)
        texts: list[str] = []
        self._is_interrupted = False
        self._write(ANSWER)
        try:
            with closing(self._answer((*self._history, question))) as events:
                for event in events:
                    self._hear(event, pace, texts)
                    if self._is_interrupted:
                        break
        except ServingError as error:
            self._write(f"\nError: {error}\n")
            return
        self._write(f"\n{pace}\n")
        if text := "".join(texts):
            self._history += [question, ChatMessage("assistant", text)]

    def _hear(self, event: Event, pace: "_Pace", texts: list[str]) -> None:
        match event:
            case Trimmed(messages):
                del self._history[:messages]
            case Token(ids=ids, text=text):
                pace.count(len(ids))
                texts.append(text)
                if text:
                    self._write(text)


class _Pace:
    """How long the first token of an answer took, and how many a second came after it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started = self._first = self._last = clock()
        self._later_tokens: int | None = None

    def count(self, tokens: int) -> None:
        """Tokens have come; those that came first are no part of the rate."""
        if not tokens:
            return
        self._last = self._clock()
        if self._later_tokens is None:
            self._first, self._later_tokens = self._last, 0
        else:
            self._later_tokens += tokens

    def __str__(self) -> str:
        seconds = self._last - self._first
        rate = (self._later_tokens or 0) / seconds if seconds > 0 else 0.0
        return f"FTL: {self._first - self._started:.3f} s\nTPS: {rate:.3f} token/s"
