import os
import signal

import pytest

from records import embedded
from tests.end_to_end.running import ROOT, text_of

#: The five books of the embedded catalogue that are about functions and derivatives.
CALCULUS = {title for title in embedded.TITLES if "微积分" in title}


@pytest.fixture
def server(serve, folder):
    """The embedded model over the embedded catalogue, as `make run` serves them."""
    embedded.ensure(folder / "books.db")
    model, database = ROOT / "models" / "demo", f"sqlite:///{folder}/books.db"
    return serve("--model", str(model), "--database", database).wait_ready()


def test_the_embedded_model_chats_and_finds_books(server):
    whole = server.chat(temperature=0).json()
    assert whole["text"].strip()
    assert whole["stop_reason"] == "stop"
    assert text_of(server.stream(temperature=0)) == whole["text"]
    found = server.post("book_retrieval", {"wish": "帮我找找有关函数求导的书"}).json()
    assert {row["title"] for row in found["rows"]} == CALCULUS
    assert found["considered_rows"] == len(embedded.TITLES)


def test_an_answer_of_the_embedded_model_goes_on_in_another_process_to_the_letter(server):
    fields = {"temperature": 0.9, "seed": 11, "max_tokens": 500, "ignore_end": True}
    whole = text_of(server.stream(**fields))
    events = server.stream(**fields)
    seen = [next(events) for _ in range(5)]
    for worker in server.workers:
        os.kill(worker, signal.SIGKILL)
    seen += events
    assert seen[-1][0] == "finished"
    assert text_of(seen) == whole
    assert "goes on elsewhere" in server.output
