"""The bounds on log lines."""

from __future__ import annotations

from proconsul.util.throttle import COMPLAINTS_MAX, LINES, PERIOD_S, SAY_AGAIN_S, News, Throttle


def test_lines_beyond_the_bound_are_counted_and_told_later() -> None:
    throttle = Throttle()
    assert [throttle.take(5.0) for _ in range(LINES + 3)] == [0] * LINES + [None] * 3
    assert throttle.take(5.0 + PERIOD_S / 2) is None
    assert throttle.take(5.0 + PERIOD_S) == 4
    assert throttle.take(5.0 + PERIOD_S) == 0


def test_the_same_is_said_once_in_a_while() -> None:
    news = News()
    assert [news.is_news("a", at) for at in (0.0, 1.0, SAY_AGAIN_S - 1)] == [True, False, False]
    assert news.is_news("b", 1.0), "something else"
    assert [news.is_news("a", SAY_AGAIN_S + at) for at in (0.0, 1.0)] == [True, False]


def test_names_that_callers_choose_do_not_pile_up() -> None:
    news = News()
    assert all(news.is_news(str(number), 1.0) for number in range(3 * COMPLAINTS_MAX))
    assert len(news._said) <= COMPLAINTS_MAX
