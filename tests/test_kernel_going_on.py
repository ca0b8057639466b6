"""Tasks that a lost worker has begun, as the kernel does them: said again first, and then on."""

import LLMkernel
from contract import Chat, ChatMessage, Choices, Finished, PredictOption, Sampling, Task, Token, Trimmed, Wish
from tests.test_kernel import Library
from workers.scripted import ScriptedModel

#: Longer than any test may take: who pauses before tokens that were said has not been told of them.
FOR_EVER = 1000.0


def performed(library, model, task):
    """Return the text and the last event."""
    events = list(library.perform(model, task))
    return "".join(event.text for event in events if isinstance(event, Token)), events[-1]


def ids_said(library, task, **script):
    events = library.perform(ScriptedModel(**script), task)
    return tuple(id_ for event in events if isinstance(event, Token) for id_ in event.ids)


def check(library, task, **script):
    """The task, begun elsewhere and all said, says the same without a pause."""
    whole = performed(library, ScriptedModel(**script), task)
    said = ids_said(library, task, **script)
    begun = Task(task.name, task.input, task.sampling, said=(said,))
    again = performed(library, ScriptedModel(**script, pause_seconds=FOR_EVER), begun)
    assert again[0] == whole[0]
    assert again[1].reasons == whole[1].reasons == ("stop",)
    return again[1]


def question(form=None, **options):
    return Task("chat", Chat((ChatMessage("user", "hello"),), form, **options), Sampling(seed=3))


def test_a_chat_goes_on_without_the_white_space_at_its_beginning(tmp_path):
    check(Library(tmp_path, ()), question(), script="\n\n  Hello, you 😀")


def test_an_answer_in_a_form_goes_on(tmp_path):
    check(Library(tmp_path, ()), question(Choices(("red wine", "white wine"))), script="white wine")


def test_an_option_is_still_predicted(tmp_path):
    check(Library(tmp_path, ()), question(PredictOption(("A", "B", "C"))), script="it is C")


def test_a_search_for_rows_goes_on_and_ends_with_its_rows(tmp_path):
    task = Task("books", Wish("light"), Sampling(seed=3))
    ending = check(Library(tmp_path, ("Optics", "Algebra")), task, picks=["Optics"])
    assert [row.fields["title"] for row in ending.answer.rows] == ["Optics"]


def test_what_was_left_out_is_told_again(tmp_path):
    turns = tuple(ChatMessage(role, f"{role} " * 30) for role in ("user", "assistant") * 20)
    conversation = Chat((*turns, ChatMessage("user", "hello")), drops_history=True)
    model = ScriptedModel("a b", context_tokens=200)
    trimmed, *_, ending = LLMkernel.chat(model, conversation, Sampling(), [(1,)])
    assert isinstance(trimmed, Trimmed)
    assert isinstance(ending, Finished)
