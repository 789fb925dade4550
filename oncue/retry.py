"""Which failed attempts are tried again, and when.

Pure policy: the worker asks, the engine keeps the time. `RetryLater`, `Snooze` and `GiveUp`, which task code raises to
decide for itself, are the worker's to obey before it asks here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias

from oncue.errors import ConfigError

__all__ = ["NO_RETRY", "Backoff", "Jitter", "Retry"]

Backoff: TypeAlias = Literal["exponential", "linear", "constant"]
Jitter: TypeAlias = Literal["full", "equal", "none"]
ErrorTypes: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]
Delay: TypeAlias = Callable[[int, BaseException | None], float | timedelta]

_BACKOFFS: Final = ("exponential", "linear", "constant")
_JITTERS: Final = ("full", "equal", "none")
_MOST_ATTEMPTS: Final = 1_000_000
_LONGEST: Final = 10 * 365 * 86_400.0
"""Seconds: no delay is longer, so that no store has to hold a date that does not exist."""
_MOST_LEAVES: Final = 1_000

_logger = logging.getLogger("oncue.retry")


@dataclass(frozen=True, slots=True)
class Retry:
    """When a failed attempt is tried again.

    Attributes:
        max: attempts in all, the first one included: `Retry(max=5)` runs a job at most five times, `max=1` never again.
        backoff: how the delay grows. With `base=1`: `"exponential"` 1, 2, 4, 8, … seconds; `"linear"` 1, 2, 3, 4, …;
            `"constant"` 1, 1, 1, 1, …; or a function of the number of the attempt that failed (from 1) and its
            exception, which returns seconds or a timedelta. What a function returns is used as it is: neither cap nor
            jitter apply.
        base: the first delay, in seconds or as a timedelta.
        cap: no delay is longer.
        jitter: which part of a delay is left to chance, so that jobs that failed together do not come back together:
            `"full"`, anything from zero to the delay; `"equal"`, half of it is certain; `"none"`. None means `"equal"`
            for exponential backoff, and `"none"` for the others, which promise a pace. Names and formulas are those
            of Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, March 2015.
        on: only these errors are retried. `KeyboardInterrupt`, `SystemExit` and `asyncio.CancelledError` are no
            `Exception`: if a task raises them its attempt has failed, and is retried only if they are named here.
        not_on: these are not, though `on` has them.
        timeouts: whether an attempt that the worker stopped at its timeout is retried. A `TimeoutError` that the task
            itself raised is an error like others.

    An exception group is retried if all that is in it would be.
    """

    max: int = 5
    backoff: Backoff | Delay = "exponential"
    base: float | timedelta = 1.0
    cap: float | timedelta = 3_600.0
    jitter: Jitter | None = None
    on: ErrorTypes = (Exception,)
    not_on: ErrorTypes = ()
    timeouts: bool = True

    def __post_init__(self) -> None:
        """Check every option, and bring durations to seconds and error types to tuples."""
        if isinstance(self.max, bool) or not isinstance(self.max, int) or not 1 <= self.max <= _MOST_ATTEMPTS:
            raise _wrong("max", self.max, f"a number of attempts from 1 to {_MOST_ATTEMPTS:,}, for example 5")
        if not callable(self.backoff) and self.backoff not in _BACKOFFS:
            raise _wrong(
                "backoff", self.backoff, f"one of {_listed(_BACKOFFS)}, or a function (attempt, error) -> seconds"
            )
        if self.jitter is not None and self.jitter not in _JITTERS:
            raise _wrong("jitter", self.jitter, f"one of {_listed(_JITTERS)}")
        if not isinstance(self.timeouts, bool):
            raise _wrong("timeouts", self.timeouts, "True or False")
        base = _seconds("base", self.base)
        cap = _seconds("cap", self.cap)
        if cap < base:
            raise _wrong("cap", self.cap, f"no shorter than base, which is {base:g} s")
        for name, value in {
            "base": base,
            "cap": cap,
            "on": _types("on", self.on),
            "not_on": _types("not_on", self.not_on),
        }.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, value: Retry | int | bool | None) -> Retry:
        """Return the policy that a task's `retry` option means: a number is `max`, True the defaults, None none."""
        if isinstance(value, Retry):
            return value
        if value is None or value is False:
            return NO_RETRY
        if value is True:
            return cls()
        if isinstance(value, int):
            return cls(max=value)
        raise _wrong("retry", value, "a number of attempts or a policy, for example 5 or Retry(max=5, on=(OSError,))")

    def retries(self, error: BaseException) -> bool:
        """Whether an attempt that raised this is worth another, by its type alone; the worker counts attempts."""
        on, not_on = _tuple(self.on), _tuple(self.not_on)
        if not isinstance(error, BaseExceptionGroup) or isinstance(error, not_on):
            return isinstance(error, on) and not isinstance(error, not_on)
        leaves = _leaves(error)
        if any(isinstance(leaf, not_on) for leaf in leaves):
            return False
        return isinstance(error, on) or all(isinstance(leaf, on) for leaf in leaves)

    def delay(self, attempt: int, error: BaseException | None, random: float) -> float:
        """Return the seconds to wait after an attempt has failed; never raises, never below 0 or without end.

        Args:
            attempt: the number of the attempt that failed, from 1.
            error: what it raised; only a `backoff` function looks at it.
            random: a number from 0 up to 1, drawn by the caller.
        """
        if callable(self.backoff):
            try:
                answer = self.backoff(attempt, error)
                seconds = answer.total_seconds() if isinstance(answer, timedelta) else float(answer)
                if not math.isnan(seconds):
                    return min(max(seconds, 0.0), _LONGEST)
                _logger.warning("backoff function %r answered nan; exponential backoff is used", _name(self.backoff))
            except Exception:
                # The job must still have an outcome: a faulty policy costs its pace, not the job.
                _logger.warning(
                    "backoff function %r failed; exponential backoff is used", _name(self.backoff), exc_info=True
                )
        delay = self._planned(max(attempt, 1))
        jitter = self.jitter or ("none" if self.backoff in ("linear", "constant") else "equal")
        if jitter == "full":
            return delay * random
        if jitter == "equal":
            return delay / 2 + delay / 2 * random
        return delay

    def _planned(self, attempt: int) -> float:
        base, cap = _seconds("base", self.base), _seconds("cap", self.cap)
        if self.backoff == "constant":
            return base
        # A float power overflows at 2**1024; any cap is reached long before.
        factor = float(attempt) if self.backoff == "linear" else 2.0 ** min(attempt - 1, 1_000)
        return min(base * factor, cap)


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _wrong(option: str, value: object, valid: str) -> ConfigError:
    # Reprs of callers' own objects may raise; their class is enough.
    shown = repr(value) if isinstance(value, (bool, int, float, str, timedelta, type(None))) else type(value).__name__
    where = "retry" if option == "retry" else f"Retry({option}=…)"
    return ConfigError(f"{where} must be {valid}; not {shown:.80}")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _seconds(option: str, value: Any) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LONGEST:
        raise _wrong(option, value, "seconds (or a timedelta) from 0 to ten years, for example 2.5")
    return float(value)


def _types(option: str, value: Any) -> tuple[type[BaseException], ...]:
    types = value if isinstance(value, (tuple, list, set, frozenset)) else (value,)
    for one in types:
        if not isinstance(one, type) or not issubclass(one, BaseException):
            raise _wrong(option, one, "a tuple of exception classes, for example (OSError, TimeoutError)")
    return tuple(types)


def _tuple(types: ErrorTypes) -> tuple[type[BaseException], ...]:
    return types if isinstance(types, tuple) else (types,)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the exceptions in a group that are no groups themselves; those of a huge group are not all looked at."""
    leaves: list[BaseException] = []
    stack: list[BaseException] = [group]
    while stack and len(leaves) < _MOST_LEAVES:
        error = stack.pop()
        if isinstance(error, BaseExceptionGroup):
            stack.extend(error.exceptions)
        else:
            leaves.append(error)
    return leaves


NO_RETRY: Final = Retry(max=1)
"""The policy of a task that names none."""
