"""Whether a value comes back from JSON as it was.

JSON knows seven kinds of values, Python more: a tuple becomes a list, NaN becomes null, a subclass becomes its base.
Where a type says what to make of the JSON, pydantic brings the value back; where it does not, something is lost without
a word. Here is what is needed to notice. Which annotations need which check is for `oncue.traits`; what is done about
a loss, and how it is said, for `oncue.signature` and `oncue.serializers`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from enum import Enum
from typing import Any, Final, TypeAlias

from pydantic import BaseModel
from pydantic_core import from_json

from oncue.failures import safe_repr
from oncue.traits import Traits

__all__ = [
    "BROKEN_TEXT",
    "MAX_DEPTH",
    "difference",
    "find_foreign",
    "find_value",
    "is_broken_text",
    "json_problem",
    "native",
    "suspicious",
    "where_unwritable",
]

MAX_DEPTH: Final = 100
"""How deep lists and dicts may be nested. pydantic reads 200 levels, Python's own parser about a thousand."""
_MAX_DIGITS: Final = 4_300
"""Of one number: Python and pydantic read no longer ones."""
_MAX_SEARCHED: Final = 50_000
"""Values that are looked at to say where the trouble is."""

# --- Untyped values -------------------------------------------------------------------------------------------------

_SCALARS: Final = frozenset({str, bool, type(None)})
_LEAVES: Final = _SCALARS | {int, float, bytes}
_LARGEST: Final = 2**63


def native(value: object, *, most: int) -> bool:
    """Whether a value is JSON's own: None, bool, int of 64 bits, finite float, str, and lists and dicts (with keys that
    are str) of those, at most `MAX_DEPTH` deep. Subclasses are not: they would not come back.

    It goes level by level: a value that holds itself is as deep as is looked, and costs no stack. More than `most`
    values are refused before they are made into JSON: lists that hold another twice, thirty levels deep, are a billion.
    """
    level: list[Any] = [value]
    seen = 0
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind in _SCALARS:
                continue
            if kind is int:
                if not -_LARGEST <= item < _LARGEST:
                    return False
            elif kind is float:
                if not math.isfinite(item):
                    return False
            elif kind is dict:
                for key in item:
                    if type(key) is not str:
                        return False
                below.extend(item.values())
            elif kind is list:
                below.extend(item)
            else:
                return False
            if len(below) > most:
                return False
        if not below:
            return True
        seen += len(below)
        if seen > most:
            return False
        level = below
    return False


def find_foreign(value: object) -> tuple[str, str]:
    """Return where in a value that is not `native` the trouble is, and what it is."""
    level: list[tuple[str, Any]] = [("", value)]
    seen = 0
    for _ in range(MAX_DEPTH + 1):
        below: list[tuple[str, Any]] = []
        for path, item in level:
            if problem := _foreign(item):
                return path, problem
            if type(item) is list:
                below.extend((f"{path}[{index}]", child) for index, child in enumerate(item))
            elif type(item) is dict:
                below.extend((f"{path}[{safe_repr(key, 40)}]", child) for key, child in item.items())
            seen += 1
            if seen > _MAX_SEARCHED:
                return "", "it has too many values, or holds itself more than once"
        level = below
    return "", f"it is nested more than {MAX_DEPTH} levels deep, or holds itself"


def _foreign(item: Any) -> str | None:
    kind = type(item)
    if kind is int and not -_LARGEST <= item < _LARGEST:
        return "an int outside 64 bits is not read back by every JSON reader"
    if kind is float and not math.isfinite(item):
        return f"{item} cannot be written: JSON has no NaN and no infinity"
    if kind is dict:
        odd = next((key for key in item if type(key) is not str), None)
        return (
            None
            if odd is None
            else f"the key {safe_repr(odd, 40)} is a {type(odd).__name__} and would come back as str"
        )
    if kind is tuple or kind is set or kind is frozenset:
        return f"a {kind.__name__} would come back as a list"
    if kind in _SCALARS or kind in {int, float, list}:
        return None
    return f"a {kind.__name__} would not come back as one"


# --- JSON -----------------------------------------------------------------------------------------------------------

_NONFINITE: Final = "NaN and infinity cannot be written: JSON has neither"
BROKEN_TEXT: Final = (
    "a text has half of a surrogate pair, which is no Unicode character; "
    "clean it with text.encode(errors='replace').decode()"
)
_REPLACED: Final = "\ufffd".encode()
"""What pydantic writes in the place of half a surrogate pair in a key; elsewhere it refuses it."""
# As numbers: to look for a piece of bytes in bytes takes Python ten times as long.
_LETTER_N, _LETTER_I, _LETTER_REPLACED = b"NI" + _REPLACED[:1]
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]')


def _nonfinite(data: bytes) -> bool:
    """Whether JSON has a bare NaN or Infinity in it, which no other reader takes."""
    if b"NaN" not in data and b"Infinity" not in data:
        return False
    try:
        from_json(data, allow_inf_nan=False)
    except ValueError:
        return True
    return False  # it was text


def suspicious(data: bytes) -> bool:
    """Whether `json_problem` is worth a look: a short text without these bytes has none. Quick, for every job."""
    return len(data) > MAX_DEPTH or _LETTER_N in data or _LETTER_I in data or _LETTER_REPLACED in data


def json_problem(value: Any, data: bytes, traits: Traits) -> str | None:
    """Return why JSON that pydantic wrote of a value could not be read back, or None."""
    if traits.floats and _nonfinite(data):
        return _NONFINITE
    # A model writes NaN as null, unless its own configuration says otherwise.
    if traits.model_floats and b"null" in data and _holds(value, float, is_nonfinite):
        return _NONFINITE
    if _REPLACED in data and _holds(value, str, is_broken_text):
        return BROKEN_TEXT
    if traits.nested and data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(data) > MAX_DEPTH + 1:
        return f"it is nested more than {MAX_DEPTH} levels deep"
    if traits.numbers and len(data) > _MAX_DIGITS:
        try:
            from_json(data, cache_strings=False)
        except ValueError as error:
            return f"it could not be read back ({error})"
    return None


def where_unwritable(value: Any) -> str:
    """Return the path to the first NaN, infinity or broken text; empty if it is the value itself, or there is none."""
    found = find_value(value, lambda item: is_nonfinite(item) or is_broken_text(item))
    return found[0] if found else ""


def is_nonfinite(value: Any) -> bool:
    """Whether a value is NaN or an infinity."""
    return isinstance(value, float) and not math.isfinite(value)


def is_broken_text(value: Any) -> bool:
    """Whether a value is text that cannot be written as UTF-8."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return True
    return False


def _depth(data: bytes) -> int:
    depth = deepest = 0
    for token in _TOKENS.findall(data):
        if token in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token in b"]}":
            depth -= 1
    return deepest


# --- There and back -------------------------------------------------------------------------------------------------

Difference: TypeAlias = tuple[str, str]
"""Where, as a path such as `.size[0]`, and what."""


def difference(before: Any, after: Any, *, strict: bool) -> Difference | None:
    """Return the first thing that is not the same in a value that went through JSON, or None.

    Args:
        before: the value.
        after: the same, written and read.
        strict: types are compared everywhere. Without, values of different types that are equal pass: the annotation
            says which type the task is to get.
    """
    if not strict and _equal(before, after):
        return None
    return _compare(before, after, "", strict)


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:
        return False  # NumPy arrays and the like have no such answer; what is inside is compared next


def _compare(before: Any, after: Any, path: str, strict: bool) -> Difference | None:
    if type(before) is not type(after):
        return _compare_types(before, after, path, strict)
    if isinstance(before, (list, tuple, deque)):
        return _compare_items(before, after, path, strict)
    if isinstance(before, Mapping):
        return _compare_mappings(before, after, path, strict)
    if isinstance(before, BaseModel) or dataclasses.is_dataclass(before):
        left, right = dict(_fields(before)), dict(_fields(after))
        for name in left.keys() | right.keys():
            if name not in left or name not in right:
                return f"{path}.{name}", "this field would be lost"
            if found := _compare(left[name], right[name], f"{path}.{name}", strict):
                return found
        return None
    if strict and isinstance(before, Set) and {type(item) for item in before} != {type(item) for item in after}:
        return path, "its items would come back as another type"
    # An object that has not said what makes two of it equal cannot be judged.
    judges: object = type(before).__eq__
    if _equal(before, after) or judges is object.__eq__:
        return None
    return path, _lost(before, after)


def _compare_types(before: Any, after: Any, path: str, strict: bool) -> Difference | None:
    plain = {bool, int, float}  # 1 in a field for floats comes back as 1.0
    if type(before) in plain and type(after) in plain:
        return None if before == after else (path, _lost(before, after))
    if not strict:
        if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
            return _compare_items(before, after, path, strict)
        if not isinstance(before, BaseModel) and _equal(before, after):
            return None
    return path, _lost(before, after)


def _compare_items(before: Sequence[Any], after: Sequence[Any], path: str, strict: bool) -> Difference | None:
    if len(before) != len(after):
        return path, f"{len(before)} items would come back as {len(after)}"
    for index, (left, right) in enumerate(zip(before, after, strict=True)):
        if found := _compare(left, right, f"{path}[{index}]", strict):
            return found
    return None


def _compare_mappings(
    before: Mapping[Any, Any], after: Mapping[Any, Any], path: str, strict: bool
) -> Difference | None:
    for key, value in before.items():
        here = f"{path}[{safe_repr(key, 40)}]"
        if key not in after:
            return here, "this key would be lost, or come back as another"
        if found := _compare(value, after[key], here, strict):
            return found
    if strict and {type(key) for key in before} != {type(key) for key in after}:
        return path, "its keys would come back as another type"
    return None if len(before) == len(after) else (path, f"{len(before)} keys would come back as {len(after)}")


def _lost(before: Any, after: Any) -> str:
    if isinstance(before, float) and not math.isfinite(before):
        return f"{before} cannot be written: JSON has no NaN and no infinity"
    kind = type(before).__name__
    if hasattr(before, "get_secret_value"):
        return f"a {kind} is masked when it is stored; pass what the task needs to look the secret up"
    if type(before) is type(after):
        return f"this {kind} would come back as another one"
    other = "None" if after is None else f"a {type(after).__name__}"
    return f"a {kind} would come back as {other}; annotate it with the one type that it has"


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Give the fields of a model or dataclass; private attributes and cached properties are no part of its value."""
    if isinstance(value, BaseModel):
        names: Iterator[str] = iter(type(value).model_fields)
        yield from (value.__pydantic_extra__ or {}).items()
    else:
        names = (field.name for field in dataclasses.fields(value))
    for name in names:
        if hasattr(value, name):
            yield name, getattr(value, name)


def _holds(value: Any, kind: type, wanted: Callable[[Any], bool]) -> bool:
    """Whether something of a type is wanted in a value. Quicker than `find_value`, for values that have none."""
    level = [value]
    for _ in range(2 * MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if type(item) is kind:
                if wanted(item):
                    return True
            elif type(item) is dict:
                below.extend(item)
                below.extend(item.values())
            elif type(item) not in _LEAVES:
                below.extend(child for _, child in _children(item))
        if not below:
            return False
        level = below
    return False


def find_value(value: Any, wanted: Callable[[Any], bool]) -> tuple[str, Any, Any] | None:
    """Return the first part of a value that is wanted: its path, itself, and what holds it."""
    level: list[tuple[str, Any, Any]] = [("", value, None)]
    seen = 0
    for _ in range(MAX_DEPTH + 1):
        below: list[tuple[str, Any, Any]] = []
        for path, item, holder in level:
            if wanted(item):
                return path, item, holder
            below.extend((path + step, child, item) for step, child in _children(item))
            seen += 1
            if seen > _MAX_SEARCHED:
                return None
        level = below
    return None


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, BaseModel) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        yield from ((f".{name}", child) for name, child in _fields(value))
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield f"[{safe_repr(key, 40)}]", child
            if not isinstance(key, Enum):
                yield f" (key {safe_repr(key, 40)})", key
    elif isinstance(value, (list, tuple, deque, Set)):
        yield from ((f"[{index}]", child) for index, child in enumerate(value))
