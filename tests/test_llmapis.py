"""What starting a worker leaves behind when it ends."""

import io
import signal

import pytest

import LLMapis
from settings import read_settings
from workers.scripted import ScriptedModel


class ClosedModel(ScriptedModel):
    """Remembers whether it was let go of."""

    is_closed = False

    def close(self):
        self.is_closed = True


@pytest.fixture
def ctrl_c_as_before():
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("ctrl_c_as_before")
@pytest.mark.parametrize("typed", ["exit\n", "hello\n", ""])
def test_a_chat_lets_go_of_its_model(monkeypatch, typed):
    model = ClosedModel()
    monkeypatch.setattr(LLMapis, "load_model", lambda settings: model)
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert LLMapis.chat_in_terminal(read_settings("LLMapis", ["--chat"], {})) == 0
    assert model.is_closed
    assert len(model.prompts) == (typed == "hello\n")
