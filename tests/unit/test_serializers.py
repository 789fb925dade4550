"""Values to bytes and back: the version byte, the application's own serializer, results."""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, RootModel, computed_field, field_serializer

import oncue
from oncue.errors import PayloadError, PayloadTooLarge
from oncue.serializers import PLAIN, Codec, Envelope, Serializer


class Zip:
    """Compresses, as an application might."""

    def dumps(self, data: bytes) -> bytes:
        return zlib.compress(data)

    def loads(self, data: bytes) -> bytes:
        inflater = zlib.decompressobj()
        text = inflater.decompress(data, 1_000_000)
        if inflater.unconsumed_tail:
            raise ValueError("more than 1 MB inside")
        return text


def codec(annotation: Any, envelope: Envelope = PLAIN) -> Codec:
    return Codec(annotation, what="result of 'task'", envelope=envelope)


# --- Envelopes ------------------------------------------------------------------------------------------------------


@given(st.binary())
def test_what_is_sealed_is_opened_as_it_was(data: bytes) -> None:
    serializer: Serializer = Zip()
    for envelope in (PLAIN, Envelope(serializer)):
        assert envelope.open(envelope.seal(data)) == data


def test_the_first_byte_says_how_to_read_the_rest() -> None:
    assert PLAIN.seal(b"{}") == b"\x01{}"
    assert Envelope(Zip()).seal(b"{}")[:1] == b"\x02"


@pytest.mark.parametrize("version", [0, 3, 7, 0x7B, 0x80, 0xFF])
def test_an_unknown_version_is_named_with_the_known_ones(version: int) -> None:
    for envelope in (PLAIN, Envelope(Zip())):
        with pytest.raises(PayloadError, match=f"version {version}; this release knows 1 .* and 2 "):
            envelope.open(bytes([version]) + b"{}")


def test_nothing_at_all_is_no_payload() -> None:
    with pytest.raises(PayloadError, match="empty"):
        PLAIN.open(b"")


def test_a_payload_of_a_serializer_is_not_read_without_it() -> None:
    with pytest.raises(PayloadError, match="this application has none: set the one"):
        PLAIN.open(Envelope(Zip()).seal(b"{}"))


def test_plain_json_does_not_pass_by_a_serializer_unless_it_is_allowed_to() -> None:
    with pytest.raises(PayloadError, match=r"only what Zip wrote; .* reads_plain=True"):
        Envelope(Zip()).open(PLAIN.seal(b"{}"))
    assert Envelope(Zip(), reads_plain=True).open(PLAIN.seal(b"{}")) == b"{}"


def test_what_a_serializer_raises_is_an_error_of_the_payload() -> None:
    envelope = Envelope(Zip())
    with pytest.raises(PayloadError, match=r"Zip\.loads failed: error: Error -3"):
        envelope.open(b"\x02no such stream")
    with pytest.raises(PayloadError, match=r"Zip\.loads failed: ValueError: more than 1 MB inside"):
        envelope.open(b"\x02" + zlib.compress(b" " * 50_000_000))
    with pytest.raises(PayloadError, match=r"Zip\.dumps failed: TypeError"):
        envelope.seal("text")  # type: ignore[arg-type]


# --- Results --------------------------------------------------------------------------------------------------------


class Colour(Enum):
    RED = "red"


@dataclass
class Size:
    width: float
    data: bytes = b""


class Thumbnail(BaseModel):
    width: int
    score: float | None = None
    data: bytes = b""


class Sharp(Thumbnail):
    sharpness: int = 3


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=lambda name: f"x-{name}", extra="forbid")
    some_name: str

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> str:
        return self.some_name * 2


class Broken(BaseModel):
    x: int = 1

    @field_serializer("x")
    def write(self, value: int) -> int:
        raise LookupError("cannot write x")


KEPT: list[tuple[Any, Any]] = [
    (int, 3),
    (str, "null"),
    (bytes, b"\xff"),
    (Size, Size(1.5, b"\xff")),
    (list[Size], [Size(0.1)]),
    (Thumbnail, Thumbnail(width=1, data=b"text")),
    (dict[Colour, Decimal], {Colour.RED: Decimal("0.10")}),
    (tuple[datetime, ...], (datetime(2026, 1, 1, tzinfo=UTC),)),
    (set[bytes], {b"\xff"}),
    (Camel, Camel.model_validate({"x-some_name": "a"})),
    (RootModel[list[int]], RootModel[list[int]]([1])),
    (Any, {"a": [1, 2.5, None, "x"]}),
    (str, "NaN and Infinity are words"),
    (dict[str, str], {"NaN": "Infinity"}),
]


@pytest.mark.parametrize(("annotation", "value"), KEPT, ids=str)
@pytest.mark.parametrize("envelope", [PLAIN, Envelope(Zip())], ids=["plain", "zip"])
def test_a_result_comes_back_with_the_type_of_its_annotation(annotation: Any, value: Any, envelope: Envelope) -> None:
    one = codec(annotation, envelope)
    back = one.decode(one.encode(value))
    assert back == value
    assert type(back) is type(value)


def test_a_result_without_a_type_is_stored_as_pydantic_sees_it() -> None:
    one = codec(Any)
    stored = one.encode({"size": Size(1, b"\xff"), "at": datetime(2026, 1, 1), "pair": (1, 2), "colour": Colour.RED})
    assert one.decode(stored) == {
        "size": {"width": 1, "data": "_w=="},
        "at": "2026-01-01T00:00:00",
        "pair": [1, 2],
        "colour": "red",
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("annotation", "value", "back"),
    [
        (Thumbnail, Sharp(width=1), Thumbnail(width=1)),
        (Thumbnail, {"width": 1}, Thumbnail(width=1)),
        (Size, {"width": 1}, Size(1.0)),
        (list[int], (1, 2), [1, 2]),
        (list[int], range(3), None),
        (int, True, 1),
        (str, Colour.RED, "red"),
        (int, None, None),
    ],
)
def test_a_job_does_not_fail_because_its_result_has_another_type_that_fits(
    annotation: Any, value: Any, back: Any
) -> None:
    one = codec(annotation)
    if isinstance(value, range):
        with pytest.raises(PayloadError, match="range"):
            one.encode(value)
    else:
        assert one.decode(one.encode(value)) == back


def test_a_result_that_does_not_fit_its_annotation_is_an_error_where_it_is_read() -> None:
    one = codec(int)
    stored = one.encode("many")
    with pytest.raises(PayloadError, match=r"result of 'task' cannot be read: .*valid integer.* not 'many'"):
        one.decode(stored)
    assert codec(Any).decode(stored) == "many"


def holding_itself() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def nested(depth: int) -> list[Any]:
    items: list[Any] = []
    for _ in range(depth):
        items = [items]
    return items


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        (Any, object(), "Unable to serialize unknown type: <class 'object'>"),
        (Any, {"a": [print]}, "Unable to serialize unknown type"),
        (int, lambda: 1, "Unable to serialize unknown type"),
        (Broken, Broken(), "LookupError: cannot write x"),
        (Any, math.nan, "NaN and infinity cannot be written"),
        (float, -math.inf, "NaN and infinity cannot be written"),
        (int, math.nan, "NaN and infinity cannot be written"),
        (dict[str, Any], {"loss": [1.0, math.nan]}, "NaN and infinity cannot be written"),
        (Thumbnail, Thumbnail(width=1, score=math.nan), "NaN and infinity cannot be written"),
        (list[Thumbnail], [Thumbnail(width=1), Thumbnail(width=1, score=math.inf)], "NaN and infinity"),
        (Size, Size(math.nan), "NaN and infinity cannot be written"),
        (
            Thumbnail,
            Thumbnail(width=1, data=b"\xff"),
            "the bytes at .data are not UTF-8; add to Thumbnail: model",
        ),
        (Any, {"a": ["\ud800"]}, "the text at ['a'][0] has half of a surrogate pair"),
        (str, "\ud800", "the text has half of a surrogate pair"),
        (dict[str, int], {"\ud800": 1}, "a text has half of a surrogate pair"),
        (Any, holding_itself(), "it holds itself, or is nested too deep"),
        (Any, nested(150), "it is nested more than 100 levels deep"),
        (Any, nested(100_000), "it holds itself, or is nested too deep"),
        (int, 10**5_000, "could not be read back"),
        (Any, [10**5_000], "could not be read back"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else type(value).__name__,
)
def test_a_result_that_cannot_be_stored_says_why(annotation: Any, value: Any, said: str) -> None:
    with pytest.raises(PayloadError, match="result of 'task' cannot be stored: ") as caught:
        codec(annotation).encode(value)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_result_may_be_as_large_as_the_limit_and_no_larger() -> None:
    one = codec(str)
    assert len(one.encode("x" * 97, 100)) == 100
    with pytest.raises(PayloadTooLarge, match="result of 'task' has 101 bytes, the limit is 100; store it beside"):
        one.encode("x" * 98, 100)
    with pytest.raises(PayloadTooLarge, match="limit is 1,048,576"):
        one.encode("x" * 1_048_576)


def test_the_limit_is_that_of_what_is_stored() -> None:
    assert len(codec(str, Envelope(Zip())).encode("x" * 100_000, 1_000)) < 1_000


@given(st.binary(max_size=60))
@settings(max_examples=300)
def test_random_bytes_are_read_or_refused(payload: bytes) -> None:
    one = codec(dict[str, Thumbnail] | None)
    for stored in (payload, b"\x01" + payload, b'\x01{"a":' + payload + b"}"):
        try:
            value = one.decode(stored)
        except PayloadError:
            continue
        assert value is None or type(value) is dict


# --- Nothing is run -------------------------------------------------------------------------------------------------

RUNS_CODE = re.compile(
    r"\b(pickle|cPickle|marshal|shelve|dill|cloudpickle|jsonpickle)\b|(?<![\w.])(eval|exec|compile|__import__)\("
    r"|yaml\.(unsafe_)?load\("
)


def test_no_module_reads_stored_bytes_in_a_way_that_runs_code() -> None:
    root = Path(oncue.__file__).parent
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in sorted(root.rglob("*.py"))
        if path.relative_to(root).parts[0] != "arq"  # reads what arq wrote, behind a switch
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if RUNS_CODE.search(line.split("#")[0]) and not re.search(r"no pickle|There is no pickle", line)
    ]
    assert not found
