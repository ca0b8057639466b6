import pytest

from bus.roster import FIRST_GUESS_SECONDS, MEMORY_SECONDS, Roster
from bus.wire import SILENCE_SECONDS
from contract import Hello, ModelCard, NoWorker, Overloaded, Task, UnknownModel, UnknownTask, Wish


def hello(worker="w", model="m", tasks=("chat",), capacity=4, active=0, held=(), heard=0):
    return Hello(worker, ModelCard(model, "f", 100), tasks, capacity, active, held, heard)


def task(task_id="t", name="chat", model=None):
    return Task(name, Wish("x"), model=model, task_id=task_id)


def roster_of(*hellos: Hello) -> Roster:
    roster = Roster(first_beat=100)
    for each in hellos:
        roster.greet(each.worker.encode(), each, now=0.0)
    return roster


def test_the_least_loaded_worker_gets_the_task():
    roster = roster_of(hello("a", capacity=10, active=5), hello("b", capacity=4, active=1))
    assert roster.assign(task("1"), now=0.0) == b"b"
    assert [status.active for status in roster.statuses()] == [5, 2]


def test_load_is_a_fraction_of_the_capacity():
    roster = roster_of(hello("a", capacity=2, active=1), hello("b", capacity=100, active=30))
    assert roster.assign(task(), now=0.0) == b"b"


def test_tasks_given_since_the_last_heartbeat_count():
    roster = roster_of(hello("a", active=1), hello("b"))
    assert [roster.assign(task(str(n)), now=0.0) for n in range(3)].count(b"b") == 2


def test_own_tasks_are_counted_once_and_those_of_other_gateways_too():
    roster = roster_of(hello("a"))
    roster.assign(task("1"), now=0.0)
    roster.greet(b"a", hello("a", active=3, held=("1",)), now=0.5)
    assert roster.statuses()[0].active == 3
    roster.release("1", now=1.0)
    assert roster.statuses()[0].active == 2


def test_equal_workers_take_turns():
    roster = roster_of(hello("a"), hello("b"))
    chosen = []
    for number in range(4):
        chosen.append(roster.assign(task(str(number)), now=0.0))
        roster.release(str(number), now=0.0)
    assert chosen == [b"a", b"b", b"a", b"b"]


def test_only_the_named_model_gets_the_task():
    roster = roster_of(hello("a", model="m"), hello("b", model="n", active=3))
    assert roster.assign(task(model="n"), now=0.0) == b"b"


def test_only_a_worker_that_knows_the_task_gets_it():
    roster = roster_of(hello("a"), hello("b", tasks=("chat", "find"), active=3))
    assert roster.assign(task(name="find"), now=0.0) == b"b"


def test_without_any_worker_there_is_no_worker():
    with pytest.raises(NoWorker):
        Roster().assign(task(), now=0.0)


def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(UnknownTask, match=r"'nosuch'.*'chat', 'find'"):
        roster_of(hello(tasks=("find", "chat"))).assign(task(name="nosuch"), now=0.0)


def test_an_unknown_model_names_the_known_ones():
    with pytest.raises(UnknownModel, match=r"'nosuch'.*'m', 'n'"):
        roster_of(hello("a", "n"), hello("b", "m")).assign(task(model="nosuch"), now=0.0)


def test_a_task_that_the_named_model_does_not_do_is_unknown():
    roster = roster_of(hello("a", "m", ("chat",)), hello("b", "n", ("find",)))
    with pytest.raises(UnknownTask, match=r"'find'.*'chat'"):
        roster.assign(task(name="find", model="m"), now=0.0)


def test_a_dead_worker_is_remembered_for_a_while():
    roster = roster_of(hello("a", "m"), hello("b", "n"))
    roster.lose(b"a", now=1.0)
    with pytest.raises(NoWorker):
        roster.assign(task(model="m"), now=1.0)
    roster.greet(b"b", hello("b", "n"), now=1.0 + MEMORY_SECONDS)
    roster.bury(now=1.1 + MEMORY_SECONDS)
    with pytest.raises(UnknownModel):
        roster.assign(task(model="m"), now=1.1 + MEMORY_SECONDS)


def test_a_leaving_worker_gets_nothing_new_and_keeps_what_it_has():
    roster = roster_of(hello("a"))
    roster.assign(task("1"), now=0.0)
    roster.farewell(b"a")
    roster.greet(b"a", hello("a", active=1, held=("1",)), now=1.0)
    assert roster.statuses()[0].is_leaving
    with pytest.raises(NoWorker):
        roster.assign(task("2"), now=0.0)
    assert roster.release("1", now=2.0) == b"a"


def test_a_worker_that_refused_is_skipped():
    roster = roster_of(hello("a"), hello("b", active=3))
    assert roster.assign(task(), now=0.0, skipped={b"a"}) == b"b"
    roster.take_back("t")
    with pytest.raises(Overloaded):
        roster.assign(task(), now=0.0, skipped={b"a", b"b"})


def test_a_worker_full_of_our_own_tasks_is_not_asked():
    roster = roster_of(hello("a", capacity=1))
    roster.assign(task("1"), now=0.0)
    with pytest.raises(Overloaded):
        roster.assign(task("2"), now=0.0)
    roster.release("1", now=1.0)
    assert roster.assign(task("2"), now=1.0) == b"a"


def test_a_worker_without_any_capacity_is_full():
    with pytest.raises(Overloaded):
        roster_of(hello(capacity=0)).assign(task(), now=0.0)


def retry_after(roster: Roster) -> float | None:
    with pytest.raises(Overloaded) as caught:
        roster.assign(task("more"), now=0.0, skipped=set(roster.workers))
    return caught.value.retry_after_seconds


def test_retry_after_is_when_a_place_comes_free():
    roster = roster_of(hello(capacity=4))
    assert retry_after(roster) == pytest.approx(FIRST_GUESS_SECONDS / 4)
    roster.assign(task("1"), now=0.0)
    roster.release("1", now=40.0)
    assert retry_after(roster) == pytest.approx(10.0)
    assert retry_after(roster) == pytest.approx(20.0), "those turned away before come first"
    assert [retry_after(roster) for _ in range(9)][-1] == pytest.approx(40.0), (
        "all present tasks are over then"
    )


def test_retry_after_is_never_absurd():
    roster = roster_of(hello(capacity=1))
    roster.assign(task("1"), now=0.0)
    roster.release("1", now=0.001)
    assert retry_after(roster) == 1.0
    for number in range(100):
        roster.assign(task(str(number)), now=0.0)
        roster.release(str(number), now=10_000.0)
    assert retry_after(roster) == 60.0


def test_roster_buries_the_silent_with_their_tasks():
    roster = roster_of(hello("a"), hello("b", active=3))
    roster.assign(task("1"), now=0.0)
    roster.assign(task("2"), now=0.0)
    roster.greet(b"b", hello("b"), now=5.0)
    assert roster.bury(now=SILENCE_SECONDS) == ()
    assert sorted(roster.bury(now=SILENCE_SECONDS + 0.1)) == ["1", "2"]
    assert roster.workers == (b"b",)
    assert roster.release("1", now=9.0) is None


def test_another_start_of_a_worker_does_not_inherit_its_tasks():
    roster = roster_of(hello("first"))
    roster.greet(b"id", hello("first"), now=0.0)
    roster.lose(b"first", now=0.0)
    roster.assign(task("1"), now=0.0)
    assert roster.greet(b"id", hello("second"), now=1.0).lost == ("1",)
    assert roster.statuses()[0].active == 0


def test_a_task_that_the_worker_never_got_is_lost_once_it_answers_a_later_beat():
    roster = roster_of(hello("a"))
    roster.assign(task("1"), now=0.0)
    assert roster.greet(b"a", hello("a", heard=100), now=1.0).lost == ()
    assert roster.next_beat() == 101
    assert roster.greet(b"a", hello("a", heard=101), now=2.0).lost == ("1",)
    assert roster.greet(b"a", hello("a", heard=101), now=3.0).lost == ()


def test_a_task_that_the_worker_holds_is_not_lost():
    roster = roster_of(hello("a"))
    roster.assign(task("1"), now=0.0)
    roster.next_beat()
    assert roster.greet(b"a", hello("a", active=1, held=("1",), heard=101), now=2.0).lost == ()


def test_a_task_that_nobody_waits_for_is_a_stray():
    roster = roster_of(hello("a"))
    assert roster.greet(b"a", hello("a", active=1, held=("old",)), now=1.0).strays == ("old",)


def test_a_restarted_gateway_does_not_mistake_the_beats_of_the_one_before():
    assert Roster().next_beat() < Roster().next_beat()
