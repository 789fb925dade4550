"""Exceptions and values made into text that is safe to store, to log and to show.

Nothing here raises, whatever the exception or the value does when it is asked for its text: storing how an attempt
ended must not fail. Which failure is retried is for `oncue.retry`; what a job's state becomes is for the worker.
"""

from __future__ import annotations

import re
import reprlib
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from oncue.job import Failure

__all__ = [
    "MESSAGE_LIMIT",
    "TRACEBACK_LIMIT",
    "describe_failure",
    "looks_secret",
    "printable",
    "safe_repr",
    "summary",
]

MESSAGE_LIMIT: Final = 4_096
"""Bytes of UTF-8 that are kept of an exception's message."""
TRACEBACK_LIMIT: Final = 32_768
"""Bytes of UTF-8 that are kept of a traceback: its head and its tail."""
_NAME_LIMIT: Final = 200
_CHUNK_LIMIT: Final = 8_192
"""Of one frame or one message inside a traceback, so that a huge message does not push the frames out."""
_COLLECT_LIMIT: Final = 16 * 1024 * 1024
"""Characters of a traceback that are looked at at all: a chain of a million causes ends here."""

# Control characters but newline and tab; marks that turn the direction of text or end a line where no reader sees it;
# lone surrogates, which cannot be written as UTF-8.
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LINE_BREAKS: Final = str.maketrans({"\n": "\\n", "\t": "\\t"})

_SECRET: Final = re.compile(
    r"pass(word|wd|phrase)|secret|token|authori[sz]ation|api_?key|credential|private_?key|cookie"
    r"|(^|_)(auth|pwd|pin|cvv|cvc|otp|ssn|iban)(_|\d|$)",
    re.IGNORECASE,
)


def looks_secret(name: str) -> bool:
    """Whether a parameter or field of that name probably holds something that no log may show."""
    return _SECRET.search(name) is not None


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def printable(text: str, *, one_line: bool = False) -> str:
    """Return text with its control characters written out: it can neither colour a terminal nor forge a line."""
    text = _UNPRINTABLE.sub(_escape, text)
    return text.translate(_LINE_BREAKS) if one_line else text


def _head(text: str, size: int) -> str:
    return text[:size].encode()[:size].decode(errors="ignore")


def _tail(text: str, size: int) -> str:
    return text[-size:].encode()[-size:].decode(errors="ignore")


def _cut(text: str, limit: int, *, keep_tail: bool = False, one_line: bool = False) -> str:
    """Escape text and cut it to `limit` bytes of UTF-8; only the part that is kept is worked on."""
    if len(text) <= limit:
        text = printable(text, one_line=one_line)
        if len(text.encode()) <= limit:
            return text
    mark = f"… [cut, {len(text)} characters]"
    if not keep_tail:
        return _head(printable(text[:limit], one_line=one_line), max(limit - len(mark.encode()), 0)) + mark
    mark = f"\n{mark}\n"
    half = max(limit - len(mark.encode()), 2) // 2
    return _head(printable(text[:half]), half) + mark + _tail(printable(text[-half:]), half)


def _class_name(value: object) -> str:
    try:
        return _cut("".join((type(value).__name__, "")), _NAME_LIMIT, one_line=True)
    except BaseException:
        return "object"  # a metaclass may do anything


class _Repr(reprlib.Repr):
    """Writes only the outer parts of large and deep values, so that a cycle or 10 MB cost nothing."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = self.maxdict = 20
        self.maxstring = self.maxother = limit

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write integers of more than 4,300 digits.
        return repr(x) if x.bit_length() < 8_000 else f"<int of {x.bit_length()} bits>"

    def repr_bytes(self, x: bytes, level: int) -> str:
        return repr(x[: self.maxstring]) + ("..." if len(x) > self.maxstring else "")

    repr_bytearray = repr_bytes

    def repr_instance(self, x: Any, level: int) -> str:
        try:
            return repr(x)
        except BaseException as error:
            return f"<{_class_name(x)}, its repr raised {_class_name(error)}>"


def safe_repr(value: object, limit: int = 200) -> str:
    """Return a representation of any value on one line, at most `limit` bytes of UTF-8; never raises."""
    try:
        return _cut(_Repr(limit).repr(value), limit, one_line=True)
    except BaseException as error:
        return _cut(f"<{_class_name(value)}, its repr raised {_class_name(error)}>", limit)


def summary(error: BaseException, limit: int = 300) -> str:
    """Return `Type: message` of any exception on one line, at most `limit` bytes of UTF-8; never raises."""
    message = _message(error)
    text = f"{_class_name(error)}: {message}" if message else _class_name(error)
    return _cut(text, limit, one_line=True)


def _is_machinery(module: str) -> bool:
    """Whether a module is what calls a task, rather than the task."""
    first, _, rest = module.partition(".")
    if first == "oncue":
        return rest.partition(".")[0] != "demo"
    return first in {"asyncio", "anyio", "contextlib"} or module in {"concurrent.futures.thread", "threading"}


def _user_frames(frames: TracebackType | None, own: Callable[[str], bool]) -> TracebackType | None:
    """Drop the frames that lead to the task; if there are no others, the fault is in them, and they stay."""
    here = frames
    while here is not None and own(str(here.tb_frame.f_globals.get("__name__", ""))):
        here = here.tb_next
    return frames if here is None else here


def _message(error: BaseException) -> str:
    try:
        # Joining makes a plain string of a subclass whose methods might be overridden.
        return _cut("".join((str(error), "")), MESSAGE_LIMIT)
    except BaseException as trouble:
        return f"<no message: its __str__ raised {_class_name(trouble)}>"


def _traceback(error: BaseException, own: Callable[[str], bool]) -> str:
    frames = error.__traceback__
    try:
        frames = _user_frames(error.__traceback__, own)
        story = traceback.TracebackException(
            type(error), error, frames, capture_locals=False, compact=True, max_group_width=10, max_group_depth=10
        )
        chunks: list[str] = []
        size = 0
        for chunk in story.format():
            chunks.append(_cut(chunk, _CHUNK_LIMIT, keep_tail=True))
            size += len(chunks[-1])
            if size > _COLLECT_LIMIT:
                break
        return _cut("".join(chunks), TRACEBACK_LIMIT, keep_tail=True)
    except BaseException:
        pass
    try:  # a group nested thousands deep, a `__cause__` that raises: the frames alone
        text = "Traceback (most recent call last):\n" + "".join(traceback.format_tb(frames))
        return _cut(text + f"{_class_name(error)}: {_message(error)}\n", TRACEBACK_LIMIT, keep_tail=True)
    except BaseException:
        return ""


def describe_failure(error: BaseException, *, own: Callable[[str], bool] = _is_machinery) -> Failure:
    """Return what is kept of an exception; never raises.

    The message is cut at `MESSAGE_LIMIT`, the traceback at `TRACEBACK_LIMIT`; it has no values of local variables, and
    control characters are written out.

    Args:
        error: any exception.
        own: whether a module, given by its dotted name, is part of what calls tasks. Its frames are dropped from the
            head of the traceback.
    """
    return Failure(type=_class_name(error), message=_message(error), traceback=_traceback(error, own))
