"""Exceptions and values as text: whatever they are, text comes out, bounded and harmless."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncue.failures import (
    MESSAGE_LIMIT,
    TRACEBACK_LIMIT,
    describe_failure,
    looks_secret,
    printable,
    safe_repr,
    summary,
)
from oncue.job import Failure


def raised(error: BaseException) -> BaseException:
    """The exception as a worker gets it: with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


class Hostile(Exception):
    """Raises whatever it is asked."""

    def __init__(self, trouble: type[BaseException]) -> None:
        super().__init__("x")
        self.trouble = trouble

    def __str__(self) -> Never:
        raise self.trouble("from __str__")

    def __repr__(self) -> Never:
        raise self.trouble("from __repr__")

    def __eq__(self, other: object) -> Never:
        raise self.trouble("from __eq__")

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> Never:
        raise self.trouble("from __reduce__")


class Unprintable(type):
    @property
    def __name__(cls) -> Never:  # type: ignore[override]
        raise ValueError("no name")


class Nameless(Exception, metaclass=Unprintable):
    pass


class LyingText(str):
    __slots__ = ()

    def __getitem__(self, key: Any) -> Never:
        raise ValueError("no slices")

    def __len__(self) -> int:
        return -5

    def encode(self, *args: Any, **kwargs: Any) -> Never:
        raise ValueError("no bytes")


class Odd(Exception):
    def __str__(self) -> str:
        return LyingText("odd text")


class NoCause(Exception):
    @property
    def __cause__(self) -> Never:  # type: ignore[override]
        raise SystemExit("no cause")


def cycle() -> BaseException:
    one, other = ValueError("one"), KeyError("other")
    one.__cause__, other.__cause__ = other, one
    one.__context__, other.__context__ = one, other
    return one


def group(depth: int) -> BaseException:
    error: Exception = ValueError("core")
    for level in range(depth):
        error = ExceptionGroup(f"level {level}", [error, OSError("beside")])
    return error


def chain(length: int) -> BaseException:
    error = ValueError("first")
    for number in range(length):
        after = ValueError(f"number {number}")
        after.__cause__ = error
        error = after
    return error


def endless() -> int:
    return endless() + 1


def ping(depth: int) -> int:
    return pong(depth + 1)


def pong(depth: int) -> int:
    return ping(depth + 1)


def with_notes(notes: Any) -> BaseException:
    error = ValueError("noted")
    error.__notes__ = notes
    return error


def failing(function: Callable[..., Any], *args: Any) -> BaseException:
    try:
        function(*args)
    except BaseException as error:
        return error
    raise AssertionError("it did not fail")


ODD: dict[str, Callable[[], BaseException]] = {
    "str raises": lambda: Hostile(ValueError),
    "str raises KeyboardInterrupt": lambda: Hostile(KeyboardInterrupt),
    "str raises RecursionError": lambda: Hostile(RecursionError),
    "str raises itself": lambda: Hostile(Hostile),
    "nameless class": Nameless,
    "text that lies": Odd,
    "cause that raises": NoCause,
    "cycle of causes": cycle,
    "10 MB message": lambda: ValueError("x" * 10_000_000),
    "10 MB on one line each": lambda: ValueError("y\n" * 5_000_000),
    "group 50 deep": lambda: group(50),
    "group 5,000 deep": lambda: group(5_000),
    "chain of 10,000": lambda: chain(10_000),
    "endless recursion": lambda: failing(endless),
    "recursion of two": lambda: failing(ping, 0),
    "lone surrogate": lambda: ValueError("a\ud800b"),
    "NUL": lambda: ValueError("a\0b"),
    "notes": lambda: with_notes(["fine", "a\x1b[31mred"]),
    "notes that are none": lambda: with_notes(7),
    "notes that raise": lambda: with_notes([Hostile(ValueError)]),
    "KeyboardInterrupt": lambda: KeyboardInterrupt(),
    "SystemExit": lambda: SystemExit(3),
    "GeneratorExit": lambda: GeneratorExit(),
    "StopIteration": lambda: StopIteration(5),
    "StopAsyncIteration": lambda: StopAsyncIteration(),
    "MemoryError": lambda: MemoryError(),
    "argument that raises": lambda: ValueError(Hostile(ValueError)),
    "name with a newline": lambda: type("Bad\nName\x1b", (Exception,), {})("x"),
    "syntax error": lambda: failing(compile, "a b", "<user\n>", "single"),
}


def holds(failure: Failure) -> None:
    """Text, bounded, and what a store and a terminal can take."""
    assert type(failure.type) is type(failure.message) is type(failure.traceback) is str
    assert failure.type
    assert len(failure.type.encode()) <= 200
    assert len(failure.message.encode()) <= MESSAGE_LIMIT
    assert len(failure.traceback.encode()) <= TRACEBACK_LIMIT
    for text in (failure.type, failure.message, failure.traceback):
        assert not [char for char in text if ord(char) < 32 and char not in "\n\t"]
        assert not [char for char in text if 0x7F <= ord(char) < 0xA0]
    assert "\n" not in failure.type


@pytest.mark.parametrize("name", ODD)
def test_an_odd_exception_is_described_all_the_same(name: str) -> None:
    error = raised(ODD[name]())
    start = time.perf_counter()
    failure = describe_failure(error)
    assert time.perf_counter() - start < 5
    holds(failure)
    assert "in raised" in failure.traceback


def test_a_plain_exception_is_described_by_type_message_and_traceback() -> None:
    failure = describe_failure(raised(LookupError("no such row")))
    assert failure.type == "LookupError"
    assert failure.message == "no such row"
    assert failure.traceback.endswith("LookupError: no such row\n")
    assert "test_failures.py" in failure.traceback


def test_an_exception_whose_text_raises_says_so() -> None:
    failure = describe_failure(raised(Hostile(ZeroDivisionError)))
    assert failure.type == "Hostile"
    assert failure.message == "<no message: its __str__ raised ZeroDivisionError>"
    assert "in raised" in failure.traceback


def test_an_exception_that_was_never_raised_has_a_message_and_no_frames() -> None:
    failure = describe_failure(ValueError("made, not raised"))
    assert failure.message == "made, not raised"
    assert "File" not in failure.traceback


def test_control_characters_are_written_out_but_lines_stay() -> None:
    failure = describe_failure(ValueError("one\ntwo\tthree \x1b[31mred\r\x9b\u202eoverride\u2028"))
    assert failure.message == "one\ntwo\tthree \\x1b[31mred\\x0d\\x9b\\u202eoverride\\u2028"


def test_a_long_message_keeps_its_head_and_says_how_long_it_was() -> None:
    message = describe_failure(ValueError("start " + "é" * 50_000)).message
    assert message.startswith("start éé")
    assert message.endswith("… [cut, 50006 characters]")
    assert MESSAGE_LIMIT - 8 <= len(message.encode()) <= MESSAGE_LIMIT


def test_a_long_traceback_keeps_head_and_tail() -> None:
    def deep(number: int) -> None:
        if number:
            other(number - 1)
        raise ValueError("the end of it")

    def other(number: int) -> None:
        deep(number)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(5_000)
    try:
        error = failing(deep, 1_500)
    finally:
        sys.setrecursionlimit(limit)
    text = describe_failure(error).traceback
    assert text.startswith("Traceback (most recent call last):\n  File")
    assert text.endswith("ValueError: the end of it\n")
    assert "characters]" in text
    assert TRACEBACK_LIMIT - 100 < len(text.encode()) <= TRACEBACK_LIMIT


def test_a_huge_message_does_not_push_the_frames_out_of_the_traceback() -> None:
    text = describe_failure(raised(ValueError("x" * 10_000_000))).traceback
    assert "in raised" in text
    assert "ValueError: xxx" in text


def test_local_variables_are_not_in_the_traceback() -> None:
    def task(password: str) -> None:
        doubled = password * 2
        raise ValueError(len(doubled))

    failure = describe_failure(failing(task, "canary"))
    assert "canary" not in repr(failure)


def test_causes_are_told_and_suppressed_contexts_are_not() -> None:
    def chained() -> None:
        try:
            raise OSError("the cause")
        except OSError as error:
            raise ValueError("the effect") from error

    def suppressed() -> None:
        try:
            raise OSError("the hidden one")
        except OSError:
            raise ValueError("the effect") from None

    assert "OSError: the cause" in describe_failure(failing(chained)).traceback
    assert "the hidden one" not in describe_failure(failing(suppressed)).traceback


def namespace(name: str, source: str) -> dict[str, Any]:
    """Functions that seem to stand in another module."""
    made: dict[str, Any] = {"__name__": name}
    exec(compile(source, f"<{name}>", "exec"), made)
    return made


def test_frames_of_the_worker_are_dropped_from_the_head_and_only_there() -> None:
    user = namespace("shop.tasks", "def task(library):\n    library()\n")
    library = namespace("oncue.context", "def progress():\n    raise ValueError('inside')\n")
    worker = namespace("oncue.worker.executor", "def run(task, library):\n    task(library)\n")
    thread = namespace("concurrent.futures.thread", "def call(run, *args):\n    run(*args)\n")
    here = lambda name: name == __name__ or name.startswith(("oncue.", "concurrent."))  # noqa: E731

    error = failing(thread["call"], worker["run"], user["task"], library["progress"])
    text = describe_failure(error, own=here).traceback
    assert "in run" not in text
    assert "in call" not in text
    assert "in task" in text
    assert "in progress" in text


def test_an_error_of_the_worker_itself_keeps_its_frames() -> None:
    worker = namespace("oncue.worker.executor", "def run():\n    raise ValueError('a bug of ours')\n")
    assert "in run" in describe_failure(failing(worker["run"]), own=lambda module: True).traceback


def test_tasks_of_the_demo_are_tasks() -> None:
    demo = namespace("oncue.demo.tasks", "def task():\n    raise ValueError('seen')\n")
    worker = namespace(
        "oncue.worker.executor",
        "def run(task):\n    try:\n        task()\n    except Exception as e:\n        return e\n",
    )
    text = describe_failure(worker["run"](demo["task"])).traceback
    assert "in task" in text
    assert "in run" not in text


@given(st.text(alphabet=st.characters(), max_size=300))
def test_any_message_becomes_bounded_harmless_text(text: str) -> None:
    holds(describe_failure(raised(ValueError(text))))
    summary(ValueError(text)).encode()
    assert "\n" not in summary(ValueError(text))


@given(st.text(max_size=200))
def test_printable_text_is_unchanged(text: str) -> None:
    if text.isprintable():
        assert printable(text) == text
    printable(text).encode()


def test_a_summary_is_one_bounded_line() -> None:
    assert summary(ValueError("a\nb")) == "ValueError: a\\nb"
    assert summary(ValueError()) == "ValueError"
    assert len(summary(ValueError("é" * 500), limit=100).encode()) <= 100
    assert "raised OSError" in summary(Hostile(OSError))


class BadRepr:
    def __repr__(self) -> str:
        raise ValueError("no")


class LongRepr:
    def __repr__(self) -> str:
        return "one\ntwo\x1b" + "z" * 100_000


class NoString:
    def __repr__(self) -> str:
        return 5  # type: ignore[return-value]


def holding_itself() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def deep_list() -> list[Any]:
    items: list[Any] = []
    for _ in range(100_000):
        items = [items]
    return items


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (BadRepr(), "<BadRepr, its repr raised ValueError>"),
        ([BadRepr(), 1], "[<BadRepr, its repr raised ValueError>, 1]"),
        (NoString(), "<NoString, its repr raised TypeError>"),
        ("a\nb", r"'a\nb'"),
        ({"k": (1, 2)}, "{'k': (1, 2)}"),
        (10**5_000, "<int of 16610 bits>"),
        (None, "None"),
        (b"\xff\0", r"b'\xff\x00'"),
        (Nameless, None),
        (holding_itself(), None),
        (deep_list(), None),
        ("x" * 10_000_000, None),
        (b"x" * 10_000_000, None),
        (list(range(1_000_000)), None),
        (LongRepr(), None),
        (Hostile(KeyboardInterrupt), "<Hostile, its repr raised KeyboardInterrupt>"),
        ("\ud800", r"'\ud800'"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_value_has_a_short_representation_on_one_line(value: object, shown: str | None) -> None:
    text = safe_repr(value)
    assert shown is None or text == shown
    assert len(text.encode()) <= 200
    assert text.encode().decode() == text
    assert "\n" not in text
    assert "\x1b" not in text
    assert len(safe_repr(value, 40).encode()) <= 40


@pytest.mark.parametrize(
    "name",
    ["password", "userPassword", "API_KEY", "apikey", "access_token", "Authorization", "client_secret", "auth", "pin",
     "card_pin", "passphrase", "session_cookie", "private_key", "credentials", "pwd"],
)  # fmt: skip
def test_names_of_secrets_are_known(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize("name", ["author", "width", "pinned", "spin", "key", "compass", "image", "mapping", "x", ""])
def test_names_of_other_things_are_not_taken_for_secrets(name: str) -> None:
    assert not looks_secret(name)


def test_the_fallback_still_names_the_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> Never:
        raise RecursionError

    monkeypatch.setattr(traceback, "TracebackException", broken)
    monkeypatch.setattr(traceback, "format_tb", lambda frames: ["  File somewhere, in task\n"])
    assert describe_failure(raised(ValueError("x"))).traceback.splitlines()[1:] == [
        "  File somewhere, in task",
        "ValueError: x",
    ]
