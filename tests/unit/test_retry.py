"""Retry policies: what is retried, how often, and when."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncue.errors import ConfigError
from oncue.retry import NO_RETRY, Retry

RANDOM = st.floats(0, 1, exclude_max=True)


def steps(policy: Retry, count: int, random: float = 0.0) -> list[float]:
    return [policy.delay(attempt, None, random) for attempt in range(1, count + 1)]


def test_exponential_backoff_doubles_up_to_the_cap() -> None:
    assert steps(Retry(base=1, cap=10, jitter="none"), 6) == [1, 2, 4, 8, 10, 10]


def test_linear_backoff_adds_the_base_up_to_the_cap() -> None:
    assert steps(Retry(backoff="linear", base=2, cap=7), 5) == [2, 4, 6, 7, 7]


def test_constant_backoff_keeps_its_pace_whatever_chance_says() -> None:
    assert steps(Retry(backoff="constant", base=timedelta(seconds=30)), 3, random=0.7) == [30, 30, 30]


def test_full_jitter_leaves_the_whole_delay_to_chance() -> None:
    policy = Retry(base=8, jitter="full")
    assert [policy.delay(1, None, random) for random in (0, 0.25, 0.5)] == [0, 2, 4]


def test_equal_jitter_keeps_half_of_the_delay() -> None:
    policy = Retry(base=8, jitter="equal")
    assert [policy.delay(1, None, random) for random in (0, 0.25, 0.5)] == [4, 5, 6]


def test_exponential_backoff_has_equal_jitter_unless_told_otherwise() -> None:
    assert Retry(base=8).delay(1, None, 0) == 4


@given(
    attempt=st.one_of(st.integers(-5, 100), st.just(10_000), st.integers(0, 10**30)),
    random=RANDOM,
    backoff=st.sampled_from(["exponential", "linear", "constant"]),
    jitter=st.sampled_from(["full", "equal", "none", None]),
    base=st.floats(0, 3_600),
    cap=st.floats(3_600, 1e8),
)
def test_every_delay_is_between_zero_and_the_cap(
    attempt: int, random: float, backoff: Any, jitter: Any, base: float, cap: float
) -> None:
    delay = Retry(backoff=backoff, jitter=jitter, base=base, cap=cap).delay(attempt, None, random)
    assert 0 <= delay <= cap


@given(random=RANDOM)
def test_without_chance_no_delay_is_shorter_than_the_one_before(random: float) -> None:
    delays = steps(Retry(jitter="equal"), 40, random)
    assert delays == sorted(delays)


def test_a_backoff_function_is_asked_with_the_attempt_and_the_error_and_taken_at_its_word() -> None:
    asked: list[tuple[int, BaseException | None]] = []

    def backoff(attempt: int, error: BaseException | None) -> float | timedelta:
        asked.append((attempt, error))
        return timedelta(hours=5)

    error = OSError("down")
    assert Retry(backoff=backoff, cap=60).delay(3, error, 0.5) == 5 * 3_600
    assert asked == [(3, error)]


@pytest.mark.parametrize(("answer", "delay"), [(-5, 0), (0, 0), (2.5, 2.5), (float("inf"), 315_360_000)])
def test_what_a_backoff_function_answers_is_brought_into_bounds(answer: float, delay: float) -> None:
    assert Retry(backoff=lambda attempt, error: answer).delay(1, None, 0) == delay


@pytest.mark.parametrize("answer", [None, "soon", float("nan"), ZeroDivisionError("oops"), 10**400])
def test_a_backoff_function_that_fails_costs_its_pace_and_is_reported(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def backoff(attempt: int, error: BaseException | None) -> float:
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    with caplog.at_level(logging.WARNING, "oncue.retry"):
        assert Retry(backoff=backoff, base=4).delay(2, None, 0) == 4
    assert "exponential backoff is used" in caplog.text
    assert "backoff" in caplog.records[0].getMessage()


def test_by_default_every_exception_is_retried_but_no_exit() -> None:
    policy = Retry()
    assert policy.retries(ValueError())
    assert policy.retries(TimeoutError())
    for error in (KeyboardInterrupt(), SystemExit(1), asyncio.CancelledError(), GeneratorExit()):
        assert not policy.retries(error)


def test_exits_are_retried_where_they_are_named() -> None:
    policy = Retry(on=(asyncio.CancelledError, SystemExit))
    assert policy.retries(asyncio.CancelledError())
    assert policy.retries(SystemExit(3))
    assert not policy.retries(KeyboardInterrupt())
    assert not policy.retries(ValueError())


def test_only_the_named_errors_and_their_subclasses_are_retried() -> None:
    policy = Retry(on=(OSError,), not_on=(FileNotFoundError,))
    assert policy.retries(ConnectionResetError())
    assert not policy.retries(FileNotFoundError())
    assert not policy.retries(ValueError())


def test_one_error_type_needs_no_tuple() -> None:
    assert Retry(on=OSError).on == (OSError,)
    assert Retry(on=OSError, not_on=FileNotFoundError).not_on == (FileNotFoundError,)


def test_a_group_is_retried_if_all_that_is_in_it_would_be() -> None:
    policy = Retry(on=(OSError,), not_on=(FileNotFoundError,))
    assert policy.retries(ExceptionGroup("g", [OSError(), ExceptionGroup("inner", [ConnectionError()])]))
    assert not policy.retries(ExceptionGroup("g", [OSError(), ValueError()]))
    assert not policy.retries(ExceptionGroup("g", [OSError(), FileNotFoundError()]))
    assert not Retry().retries(BaseExceptionGroup("g", [KeyboardInterrupt(), ValueError()]))
    assert not Retry(not_on=(ExceptionGroup,)).retries(ExceptionGroup("g", [OSError()]))


def test_a_group_nested_a_thousand_deep_is_no_trouble() -> None:
    error: Exception = OSError()
    for _ in range(5_000):
        error = ExceptionGroup("g", [error])
    assert Retry(on=(OSError,)).retries(error)


@pytest.mark.parametrize(
    ("given_as", "policy"),
    [
        (None, Retry(max=1)),
        (False, Retry(max=1)),
        (True, Retry()),
        (1, Retry(max=1)),
        (7, Retry(max=7)),
        (Retry(max=2, on=OSError), Retry(max=2, on=(OSError,))),
    ],
)
def test_the_retry_option_of_a_task_may_be_short(given_as: Any, policy: Retry) -> None:
    assert Retry.of(given_as) == policy


def test_a_task_that_names_no_policy_has_one_attempt() -> None:
    assert NO_RETRY.max == 1
    assert Retry.of(None) is NO_RETRY


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max": 0}, "Retry(max=…) must be a number of attempts from 1 to 1,000,000, for example 5; not 0"),
        ({"max": True}, "max"),
        ({"max": 2.0}, "max"),
        ({"max": "5"}, "max"),
        ({"backoff": "fibonacci"}, "'fibonacci'"),
        ({"backoff": None}, '"exponential"'),
        ({"jitter": "half"}, '"full", "equal", "none"'),
        ({"base": -1}, "base"),
        ({"base": float("nan")}, "base"),
        ({"base": "1"}, "base"),
        ({"base": timedelta(seconds=-1)}, "base"),
        ({"cap": float("inf")}, "cap"),
        ({"base": 20, "cap": 10}, "no shorter than base, which is 20 s; not 10"),
        ({"base": 7_200}, "cap"),
        ({"on": (OSError, "ValueError")}, "for example (OSError, TimeoutError); not 'ValueError'"),
        ({"on": (int,)}, "on"),
        ({"not_on": 5}, "not_on"),
        ({"timeouts": None}, "timeouts"),
    ],
)
def test_an_option_that_cannot_be_is_named_with_a_valid_one(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match="Retry") as caught:
        Retry(**options)
    assert said in str(caught.value)
    assert next(reversed(options)) in str(caught.value) or "cap" in str(caught.value)


@pytest.mark.parametrize("value", ["5", 0, -1, 2.5, object()])
def test_a_retry_option_that_cannot_be_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"[Rr]etry"):
        Retry.of(value)


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Retry().max = 3  # type: ignore[misc]
