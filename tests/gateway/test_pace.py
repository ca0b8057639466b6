from gateway.pace import FIRST_EVENT_SECONDS, GAP_SECONDS, KEEP_ALIVE_SECONDS, Pace


def test_the_first_news_is_told_at_once():
    pace = Pace(10.0)
    assert not pace.is_due(10.5)
    pace.has_news = True
    assert pace.is_due(10.5)


def test_without_news_the_first_event_comes_before_a_client_gives_up():
    pace = Pace(10.0)
    assert not pace.is_due(10.0 + FIRST_EVENT_SECONDS - 0.01)
    assert pace.is_due(10.0 + FIRST_EVENT_SECONDS)
    assert FIRST_EVENT_SECONDS < 4  # a second may pass between two looks at the clock


def test_news_right_after_an_event_wait_for_the_gap():
    pace = Pace(10.0)
    pace.note(10.0)
    pace.has_news = True
    assert not pace.is_due(10.0 + GAP_SECONDS / 2)
    assert 0 < pace.seconds_to_gap(10.0 + GAP_SECONDS / 2) <= GAP_SECONDS
    assert pace.is_due(10.1)
    assert pace.seconds_to_gap(10.1) == 0


def test_silence_is_broken_now_and_then():
    pace = Pace(10.0)
    pace.note(10.0)
    assert not pace.is_due(10.0 + FIRST_EVENT_SECONDS)
    assert pace.is_due(10.0 + KEEP_ALIVE_SECONDS)


def test_the_end_is_told_if_something_is_new_or_nothing_was_ever_said():
    pace = Pace(10.0)
    assert pace.is_owed_last
    pace.note(10.0)
    assert not pace.is_owed_last
    pace.has_news = True
    assert pace.is_owed_last
