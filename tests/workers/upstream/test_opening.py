import threading

import pytest

from contract import UpstreamDown
from tests.workers.upstream.reading import ask, text_of
from tests.workers.upstream.servers import HostileServer, lectern_over, status
from workers.errors import CannotLoad
from workers.models import create_model
from workers.placement import Placement
from workers.scripted import ScriptedModel
from workers.upstream import opening
from workers.upstream.opening import open_upstream
from workers.upstream.reach import Reach


def listing(*names, **fields):
    models = ", ".join(f'{{"id": "{name}", "owned_by": "vllm", "max_model_len": 512}}' for name in names)
    return status(200, f'{{"data": [{models}]}}'.encode())


def opened(*scripts, model="", name="", **reach):
    with HostileServer(*[[script] for script in scripts]) as server:
        return open_upstream(f"openai:{server.url}{model}", name, Reach(**reach)).card


def test_a_server_tells_its_name_its_kind_and_its_context():
    card = opened(listing("Qwen/Qwen2.5-7B"))
    assert (card.name, card.context_tokens) == ("Qwen/Qwen2.5-7B", 512)
    assert card.capabilities.goes_on
    assert card.capabilities.cannot_sample == ()


def test_a_person_may_say_the_name_the_model_and_the_context():
    card = opened(listing("a", "b"), model="#b", name="ours", context_tokens=100)
    assert (card.name, card.context_tokens) == ("ours", 100)
    assert card.fingerprint != opened(listing("a", "b"), model="#a").fingerprint


def test_another_lectern_is_an_upstream():
    with lectern_over(ScriptedModel("hello there", name="theirs")) as (url, _):
        model = create_model(f"openai:{url}", "", Placement(), Reach())
        assert model.card.name == "theirs"
        assert not model.card.capabilities.goes_on
        assert text_of(ask(model)) == "hello there"


@pytest.mark.parametrize(
    ("script", "model", "complaint"),
    [
        (status(401), "", "needs another key"),
        (status(404), "", "lists no models: add #MODEL"),
        (listing("a", "b"), "", "has 2 models: add #MODEL with one of a, b"),
        (listing("a", "b"), "#c", "has no model c, only a, b"),
    ],
)
def test_what_will_never_work_ends_with_one_line(script, model, complaint):
    with pytest.raises(CannotLoad, match=complaint) as refused:
        opened(script, model=model, api_key="secret-key")
    assert "secret-key" not in str(refused.value)


def test_a_server_without_a_list_is_taken_at_ones_word():
    card = opened(status(404), model="#theirs")
    assert (card.name, card.context_tokens) == ("theirs", opening.UNTOLD_CONTEXT_TOKENS)
    assert "top_k" in card.capabilities.cannot_sample


@pytest.mark.parametrize(
    "script", [status(503), status(200, b"{}"), status(200, b"<html>"), status(200, b'{"data": []}')]
)
def test_a_server_that_is_not_ready_yet_is_waited_for(script, monkeypatch, caplog):
    monkeypatch.setattr(opening, "FIRST_LOOK_SECONDS", 0.01)
    assert opened(script, script, listing("a")).name == "a"
    assert caplog.text.count("Waiting for the upstream") == 2


def test_a_server_that_is_not_there_is_waited_for(monkeypatch):
    monkeypatch.setattr(opening, "FIRST_LOOK_SECONDS", 0.01)
    with HostileServer([listing("late")]) as server:
        url = server.url
    cards = []
    thread = threading.Thread(target=lambda: cards.append(open_upstream(f"openai:{url}", "", Reach()).card))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    with HostileServer([listing("late")], port=server.port):
        thread.join(20)
    assert cards[0].name == "late"


def test_yuan_needs_no_look(monkeypatch):
    model = open_upstream("yuan:http://127.0.0.1:9", "source", Reach(context_tokens=2048))
    assert (model.card.name, model.card.context_tokens) == ("source", 2048)
    assert model._line.url == "http://127.0.0.1:9/yuan"
    with pytest.raises(UpstreamDown):
        text_of(ask(model))


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://h:1", "http://h:1/v1"),
        ("http://h:1/", "http://h:1/v1"),
        ("http://h:1/v1/", "http://h:1/v1"),
        ("https://h/api/v3", "https://h/api/v3"),
    ],
)
def test_an_address_without_a_path_has_the_usual_one(address, url):
    assert opening._with_path(address, "/v1") == url
