"""Signatures: how arguments are bound, stored, brought back and passed on."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import math
import sys
import timeit
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, IntFlag, StrEnum
from pathlib import Path
from time import process_time
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar, Unpack
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, computed_field, field_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict  # pydantic takes that of typing from Python 3.12 on

from oncue.errors import ConfigError, InvalidArguments, InvalidJob, PayloadError, PayloadTooLarge
from oncue.serializers import Envelope
from oncue.signature import Signature
from tests.measured import Report
from tests.unit import tasks_of_others
from tests.unit.tasks_of_others import Context


class OwnContext(Context):
    pass


def signature(fn: Callable[..., Any], **options: Any) -> Signature:
    return Signature.of(fn, context_type=Context, **options)


def taking(annotation: Any) -> Signature:
    """The signature of a task with one parameter, `value`."""

    def task(value: Any) -> None: ...

    task.__annotations__["value"] = annotation
    return signature(task)


def round_trip(annotation: Any, value: Any) -> Any:
    one = taking(annotation)
    args, kwargs = one.decode(one.encode((value,), {}))
    assert args == ()
    return kwargs["value"]


# --- The context ----------------------------------------------------------------------------------------------------


async def first(ctx: Context, x: int) -> tuple[Any, ...]:
    return ctx, x


async def optional(ctx: Context | None, x: int) -> tuple[Any, ...]:
    return ctx, x


async def subclass(x: int, context: OwnContext) -> tuple[Any, ...]:
    return context, x


async def annotated(x: int, *, c: Annotated[Context, "the context"]) -> tuple[Any, ...]:
    return c, x


async def only_by_position(x: int, ctx: Context, /) -> tuple[Any, ...]:
    return ctx, x


async def behind_a_default(x: int = 5, y: int = 6, ctx: Context | None = None, /) -> tuple[Any, ...]:
    return ctx, x, y


async def before_rest(x: int, ctx: Context, *rest: int) -> tuple[Any, ...]:
    return ctx, x, rest


async def in_the_middle(x: int, ctx: Context, y: int = 7, *rest: int, **more: int) -> tuple[Any, ...]:
    return ctx, x, y, rest, more


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "got"),
    [
        (first, (1,), {}, (1,)),
        (first, (), {"x": 1}, (1,)),
        (optional, (1,), {}, (1,)),
        (subclass, (1,), {}, (1,)),
        (annotated, (1,), {}, (1,)),
        (only_by_position, (1,), {}, (1,)),
        (behind_a_default, (), {}, (5, 6)),
        (behind_a_default, (1,), {}, (1, 6)),
        (before_rest, (1,), {}, (1, ())),
        (before_rest, (1, 2, 3), {}, (1, (2, 3))),
        (before_rest, (), {"x": 1}, (1, ())),
        (in_the_middle, (1,), {}, (1, 7, (), {})),
        (in_the_middle, (1,), {"y": 2, "z": 3}, (1, 2, (), {"z": 3})),
        (in_the_middle, (1, 2, 3, 4), {"z": 5}, (1, 2, (3, 4), {"z": 5})),
    ],
)
async def test_the_context_goes_where_its_annotation_is(
    fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], got: tuple[Any, ...]
) -> None:
    one = signature(fn)
    context = OwnContext()
    assert await one.call(fn, context, one.decode(one.encode(args, kwargs))) == (context, *got)
    assert "ontext" not in one.describe()


async def test_a_task_needs_no_context() -> None:
    async def task(ctx: int) -> int:
        return ctx

    one = signature(task)
    assert one.context is None
    assert await one.call(task, Context(), one.decode(one.encode((3,), {}))) == 3


def test_a_caller_cannot_give_the_context() -> None:
    with pytest.raises(InvalidArguments, match=r"first\(\) got the argument 'ctx', which the worker gives"):
        signature(first).encode((1,), {"ctx": 2})


def test_two_contexts_are_refused() -> None:
    async def task(one: Context, other: OwnContext) -> None: ...

    with pytest.raises(ConfigError, match="'task' has two contexts, 'one' and 'other'"):
        signature(task)


# --- Analysis -------------------------------------------------------------------------------------------------------


def test_a_signature_is_described_as_it_is_written() -> None:
    described = signature(tasks_of_others.tell).describe()
    assert described == "(text: str, *rest: int, loud: bool = False, **more: Any) -> str"


def test_kinds_of_parameters_and_defaults_are_described() -> None:
    def task(a: int, b: list[datetime] | None = None, /, *, at: datetime, password: str = "hunter2", plain=3): ...  # type: ignore[no-untyped-def]

    assert signature(task).describe() == (
        "(a: int, b: list[datetime] | None = None, /, *, at: datetime, password: str = ***, plain=3)"
    )


def test_annotations_that_are_types_are_described_without_their_modules() -> None:
    def task(value: Any) -> None: ...

    task.__annotations__ = {"value": dict[str, datetime], "return": BaseModel}
    assert signature(task).describe() == "(value: dict[str, datetime]) -> BaseModel"


class Shop:
    async def sell(self, ctx: Context, number: int) -> int:
        return number + 1

    async def __call__(self, number: int) -> int:
        return number + 2


async def with_price(ctx: Context, price: int, number: int = 1) -> int:
    return price * number


def logged(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    ("fn", "name", "described", "result"),
    [
        (Shop().sell, "sell", "(number: int) -> int", 6),
        (Shop(), "Shop", "(number: int) -> int", 7),
        (functools.partial(with_price, number=3), "with_price", "(price: int, *, number: int = 3) -> int", 15),
        (logged(with_price), "with_price", "(price: int, number: int = 1) -> int", 5),
    ],
    ids=["method", "object", "partial", "wrapped"],
)
async def test_methods_objects_partials_and_wrapped_functions_are_tasks_too(
    fn: Any, name: str, described: str, result: int
) -> None:
    one = signature(fn)
    assert one.name == name
    assert one.describe() == described
    assert await one.call(fn, Context(), one.decode(one.encode((5,), {}))) == result


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (tasks_of_others.hidden, ["'hidden'", "'amount'", "'Decimal'", "not under TYPE_CHECKING"]),
        (tasks_of_others.misspelt, ["'misspelt'", "'size'", "'Siez'", "define or import"]),
        (tasks_of_others.returns_nothing_known, ["the return annotation", "Nowhere"]),
        (tasks_of_others.thumbnail, ["'thumbnail'", "(image: bytes, width: int = 320) -> Thumbnail", "BaseModel"]),
        (lambda: (yield), ["generator", "async def"]),
    ],
    ids=["for type checkers", "misspelt", "return", "unknown to pydantic", "generator"],
)
def test_a_function_that_cannot_be_a_task_is_named_with_the_way_out(fn: Any, said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        signature(fn)
    for part in said:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (Context.__init__.__class__, "value: "),
        (type(Signature.of), "BaseModel"),
        (Iterator[int], "value: Iterator[int] cannot be stored as JSON (pydantic does not know its type); annotate"),
        (dict[str, Iterable[int]], "'value' has an iterator, which can be read only once; make it a list"),
    ],
)
def test_a_parameter_that_cannot_be_stored_is_refused_at_registration(annotation: Any, said: str) -> None:
    with pytest.raises(ConfigError, match="task 'task': ") as caught:
        taking(annotation)
    assert said in str(caught.value)


def test_a_result_that_can_be_read_only_once_is_refused_at_registration() -> None:
    def task() -> dict[str, Iterable[int]]:
        return {}

    with pytest.raises(ConfigError, match="return a list"):
        signature(task)


# --- Binding --------------------------------------------------------------------------------------------------------


# Each returns what its parameters got.
def f_plain(a: Any, b: Any, c: Any = 3) -> dict[str, Any]:
    return locals()


def f_only(a: Any, b: Any = 2, /, c: Any = 3) -> dict[str, Any]:
    return locals()


def f_named(a: Any, *, b: Any, c: Any = 3) -> dict[str, Any]:
    return locals()


def f_rest(a: Any, b: Any = 2, *rest: Any, c: Any = 3) -> dict[str, Any]:
    return locals()


def f_more(a: Any, /, b: Any = 2, **more: Any) -> dict[str, Any]:
    return locals()


def f_all(a: Any, b: Any = 2, /, c: Any = 3, *rest: Any, d: Any, **more: Any) -> dict[str, Any]:
    return locals()


def f_none() -> dict[str, Any]:
    return locals()


KINDS = {fn: signature(fn) for fn in (f_plain, f_only, f_named, f_rest, f_more, f_all, f_none)}
NAMES = st.sampled_from(["a", "b", "c", "d", "e", "rest", "more"])


@given(
    fn=st.sampled_from(list(KINDS)),
    args=st.lists(st.integers(), max_size=5),
    kwargs=st.dictionaries(NAMES, st.integers(), max_size=4),
)
@settings(max_examples=600)
def test_arguments_are_bound_as_python_binds_them(fn: Any, args: list[int], kwargs: dict[str, int]) -> None:
    try:
        called = fn(*args, **kwargs)
    except TypeError:
        with pytest.raises(InvalidArguments, match=rf"{fn.__name__}\(\) .*; it takes \("):
            KINDS[fn].bind(args, kwargs)
        return
    bound = KINDS[fn].bind(args, kwargs)
    assert {**{"a": None, "b": 2, "c": 3, "rest": (), "more": {}}, **bound} == {
        **{"a": None, "b": 2, "c": 3, "rest": (), "more": {}},
        **called,
    }
    # Python 3.11 and 3.12 refuse some of what a call takes: a name by position only that is also one of **more.
    with contextlib.suppress(TypeError):
        assert bound == inspect.signature(fn).bind(*args, **kwargs).arguments


@given(
    fn=st.sampled_from(list(KINDS)),
    args=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    kwargs=st.dictionaries(NAMES, st.booleans(), max_size=4),
)
@settings(max_examples=400)
def test_a_task_gets_what_a_direct_call_would_give_it(fn: Any, args: list[int], kwargs: dict[str, bool]) -> None:
    one = KINDS[fn]
    try:
        called = fn(*args, **kwargs)
    except TypeError:
        return
    assert one.call(fn, None, one.decode(one.encode(args, kwargs))) == called


def thumbnail(image: bytes, width: int = 320) -> None: ...


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        (
            (b"",),
            {"widht": 1},
            "thumbnail() got an unexpected argument 'widht'; it takes (image: bytes, width: int = 320) -> None. "
            "Did you mean 'width'?",
        ),
        ((), {}, "thumbnail() is missing the argument 'image'; it takes (image: bytes, width: int = 320) -> None"),
        ((b"", 1, 2), {}, "thumbnail() takes at most 2 arguments by position, not 3; it takes "),
        ((b"",), {"image": b""}, "thumbnail() got the argument 'image' twice, by position and by name; it takes "),
        ((b"",), {"zzz\x1b\n": 1}, r"thumbnail() got an unexpected argument 'zzz\x1b\n'; it takes "),
    ],
)
def test_arguments_that_do_not_fit_are_named_at_the_call(args: Any, kwargs: Any, said: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        signature(thumbnail).encode(args, kwargs)
    assert str(caught.value).startswith(said)


def test_every_missing_argument_is_named() -> None:
    with pytest.raises(InvalidArguments, match="is missing the arguments 'a', 'b'"):
        signature(f_plain).bind((), {})


def test_an_argument_by_position_only_is_said_to_be_one() -> None:
    with pytest.raises(InvalidArguments, match="takes the argument 'b' by position only"):
        signature(f_only).bind((1,), {"b": 2})


# --- Checking -------------------------------------------------------------------------------------------------------


def test_arguments_are_coerced_as_pydantic_does() -> None:
    def task(number: int, when: datetime, tags: set[str]) -> None: ...

    one = signature(task)
    _, kwargs = one.decode(one.encode(("3", "2026-01-02T03:04:05Z", ["a", "a"]), {}))
    assert kwargs == {"number": 3, "when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "tags": {"a"}}


def test_constraints_are_checked_where_the_job_is_enqueued() -> None:
    with pytest.raises(InvalidArguments, match="value: Input should be greater than 0, not -1"):
        taking(Annotated[int, Field(gt=0)]).encode((-1,), {})


class Order(BaseModel):
    number: int
    password: str = ""


def test_what_does_not_fit_is_told_a_line_for_each() -> None:
    def task(width: int, orders: list[Order]) -> None: ...

    with pytest.raises(InvalidArguments) as caught:
        signature(task).encode(("wide", [{"number": "x"}, {}]), {})
    assert str(caught.value).splitlines() == [
        "task() got arguments that do not fit (width: int, orders: list[Order]) -> None:",
        "  width: Input should be a valid integer, unable to parse string as an integer, not 'wide'",
        "  orders.0.number: Input should be a valid integer, unable to parse string as an integer, not 'x'",
        "  orders.1.number: Field required",
    ]


def test_values_in_errors_are_cut_and_their_number_is_bounded() -> None:
    with pytest.raises(InvalidArguments) as caught:
        taking(list[int]).encode((["x" * 10_000] * 500,), {})
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "  … and 480 more"
    assert all(len(line) < 250 for line in lines)


class Login(BaseModel):
    user: str
    password: Annotated[str, Field(min_length=20)]

    @field_validator("password")
    @classmethod
    def refuse(cls, value: str) -> str:
        raise ValueError(f"{value} is too weak")


@pytest.mark.parametrize(
    ("annotations", "arguments"),
    [
        ({"password": int}, {"password": "canary"}),
        ({"api_key": list[int]}, {"api_key": ["canary"]}),
        ({"login": Login}, {"login": {"user": "u", "password": "canary"}}),
        ({"login": Login}, {"login": {"user": "u", "password": "canary" * 5}}),
        ({"login": Login}, {"login": {"password": "canary"}}),
        ({"login": Login}, {"login": [{"password": "canary"}]}),
        ({"login": int}, {"login": Order(number=1, password="canary")}),
        ({"token": Annotated[str, Field(pattern="x")]}, {"token": "canary"}),
        ({"secret": SecretStr}, {"secret": SecretStr("canary")}),
        ({"secret": Any}, {"secret": ("canary",)}),
    ],
)
def test_secrets_are_in_no_error(annotations: dict[str, Any], arguments: dict[str, Any]) -> None:
    def task(**kwargs: Any) -> None: ...

    name = next(iter(annotations))
    task.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotations[name])]
    )
    task.__annotations__ = annotations
    with pytest.raises(InvalidJob) as caught:
        signature(task).encode((), arguments)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert name in str(caught.value)


def test_a_validator_that_raises_anything_is_an_error_of_the_call() -> None:
    class Broken(BaseModel):
        x: int

        @field_validator("x")
        @classmethod
        def check(cls, value: int) -> int:
            raise LookupError("no such x")

    with pytest.raises(InvalidArguments, match="LookupError: no such x"):
        taking(Broken).encode(({"x": 1},), {})


# --- What comes back as it was --------------------------------------------------------------------------------------


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Tone(StrEnum):
    DARK = "dark"


class Mixed(Enum):
    NONE = None
    NUMBER = 1.5


class Point(NamedTuple):
    x: int
    data: bytes = b""


class Row(TypedDict):
    name: str
    data: bytes


class Item(BaseModel):
    name: str
    when: datetime | None = None
    parts: list[Item] = []


class Aliased(BaseModel):
    model_config = ConfigDict(alias_generator=str.upper, extra="forbid", frozen=True)
    some_number: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return self.some_number * 2


class Binary(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes


@dataclass
class Size:
    width: float
    data: bytes = b""
    tags: set[str] = field(default_factory=set)


@pydantic_dataclass
class Checked:
    number: int


T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    content: T


class Keeping(BaseModel):
    model_config = ConfigDict(extra="allow")
    x: int
    _cache: int = PrivateAttr(default=0)


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Bird(BaseModel):
    kind: Literal["bird"] = "bird"
    data: bytes = b""


@dataclass(eq=False)
class Plain:
    x: int


WHEN = datetime(2026, 3, 29, 1, 30, 15, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))

KEPT: list[tuple[Any, Any]] = [
    (bytes, b"\xff\x00\xfe"),
    (list[bytes], [b"\xff", b""]),
    (dict[str, bytes], {"a": b"\xff"}),
    (set[bytes], {b"\xff"}),
    (bytes | None, b"\xff"),
    (dict[bytes, int], {b"\xff": 1}),
    (str, "¡olé! \u2028 \0 😀"),
    (dict[str, str], {"\ufffd": "\ufffd"}),
    (int, 2**70),
    (int, -(10**4_000)),
    (float, 0.1 + 0.2),
    (float, -0.0),
    (float, 5e-324),
    (bool, True),
    (None, None),
    (datetime, WHEN),
    (datetime, datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))),
    (datetime, datetime(2026, 1, 1)),
    (datetime, datetime.max),
    (date, date.min),
    (time, time(1, 2, 3, 4, tzinfo=UTC)),
    (timedelta, timedelta.max),
    (timedelta, timedelta(microseconds=-1)),
    (UUID, UUID(int=5)),
    (Decimal, Decimal("1.1000")),
    (Decimal, Decimal("1E+400")),
    (Colour, Colour.BLUE),
    (Level, Level.HIGH),
    (Tone, Tone.DARK),
    (Mixed, Mixed.NONE),
    (Mixed, Mixed.NUMBER),
    (Literal["a", 1], 1),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (tuple[int, str, bytes], (1, "a", b"\xff")),
    (tuple[int, ...], (1, 2)),
    (Path, Path("/tmp/x")),
    (complex, 1 + 2j),
    (Point, Point(1, b"\xff")),
    (Row, {"name": "a", "data": b"\xff"}),
    (Item, Item(name="a", when=WHEN, parts=[Item(name="b")])),
    (Aliased, Aliased.model_validate({"SOME_NUMBER": 3})),
    (Binary, Binary(data=b"\xff")),
    (Size, Size(1.5, b"\xff", {"a"})),
    (Size, Size(1)),
    (Checked, Checked(3)),
    (Box[int], Box[int](content=3)),
    (Box[list[Colour]], Box[list[Colour]](content=[Colour.RED])),
    (Keeping, Keeping(x=1, y=[1, {"a": None}])),  # type: ignore[call-arg]
    (dict[int, list[tuple[date, Decimal]]], {1: [(date(2026, 1, 1), Decimal("0.10"))]}),
    (list[Item] | None, [Item(name="a")]),
    (int | str | None, "3"),
    (int | float, 3.0),
    (int | float, 3),
    (bytes | int, b"\xff"),
    (list[int] | dict[str, int], {"a": 1}),
    (date | datetime, date(2026, 1, 1)),
    (Item | Size, Size(2.5)),
    (list[Annotated[Cat | Bird, Field(discriminator="kind")]], [Bird(data=b"x"), Cat()]),
    (Any, {"a": [1, 2.5, None, True, "x", {"b": []}]}),
    (Any, 2**63 - 1),
    (dict[str, Any], {"a": {"b": [1]}}),
    (dict, {"a": 1}),
    (list, [1, "a"]),
    (object, "text"),
    (dict[str, Any] | None, None),
    (list[Any] | str, [1, [2]]),
]


@pytest.mark.parametrize(("annotation", "value"), KEPT, ids=lambda value: str(value)[:60])
def test_a_value_comes_back_equal_and_with_its_type(annotation: Any, value: Any) -> None:
    back = round_trip(annotation, value)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "annotation",
    [int, float, str, bytes, bool, datetime, date, timedelta, UUID, Decimal, Colour, list[int], dict[str, float],
     set[int], tuple[int, str], Order, Size, Point, Row, int | str, dict[int, bytes], list[datetime | None]],
    ids=str,
)  # fmt: skip
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_value_of_a_type_comes_back_or_is_refused(annotation: Any, data: st.DataObject) -> None:
    value = data.draw(st.from_type(annotation))
    try:
        back = round_trip(annotation, value)
    except PayloadError:
        return  # zones with seconds, NaN, half surrogates and the like: never anything else than this
    assert back == value
    assert repr(back) == repr(value) or annotation not in (int, float, str, bytes, bool)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(value=JSON)
@settings(deadline=None)
def test_untyped_json_values_come_back_exactly(value: Any) -> None:
    assert repr(round_trip(Any, value)) == repr(value)


def test_a_time_zone_comes_back_as_its_offset_at_that_moment() -> None:
    value = datetime(2026, 7, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    back = round_trip(datetime, value)
    assert (back, back.utcoffset()) == (value, timedelta(hours=2))


def test_an_iterable_is_stored_as_a_list() -> None:
    assert round_trip(Iterable[int], (number for number in "12")) == [1, 2]


def test_any_sequence_comes_back_as_a_list() -> None:
    assert round_trip(Sequence[int], (1, 2)) == [1, 2]


def test_private_attributes_are_no_part_of_a_value() -> None:
    value = Keeping(x=1)
    value._cache = 5
    assert round_trip(Keeping, value).x == 1


def test_an_object_without_equality_comes_back() -> None:
    assert round_trip(Plain, Plain(3)).x == 3


class Unlucky(TypedDict):
    """Its fields are named as the parts of pydantic's own schemas are."""

    type: str
    metadata: Any
    default: float
    values: list[int]
    config: dict[str, Any]


UNLUCKY: Unlucky = {"type": "any", "metadata": 1, "default": 1.5, "values": [1], "config": {"a": 1}}


class Access(IntFlag):
    READ = 1
    WRITE = 2


def test_fields_may_have_the_names_of_parts_of_a_schema() -> None:
    assert round_trip(Unlucky, UNLUCKY) == UNLUCKY
    for name, value in {"metadata": (1,), "config": {"a": Tone.DARK}}.items():
        with pytest.raises(PayloadError, match=rf"value\['{name}'\].*would come back as"):
            taking(Unlucky).encode(({**UNLUCKY, name: value},), {})


def test_combined_flags_come_back_or_are_refused() -> None:
    assert round_trip(Access, Access.READ) is Access.READ
    with contextlib.suppress(PayloadError):
        assert round_trip(Access, Access.READ | Access.WRITE) == Access.READ | Access.WRITE


class Options(TypedDict, total=False):
    colour: str
    data: bytes


async def test_unpacked_options_are_typed() -> None:
    async def task(*pair: *tuple[int, bytes], **options: Unpack[Options]) -> tuple[Any, ...]:
        return pair, options

    one = signature(task)
    decoded = one.decode(one.encode(("1", b"\xff"), {"data": b"\xfe"}))
    assert await one.call(task, None, decoded) == ((1, b"\xff"), {"data": b"\xfe"})
    with pytest.raises(InvalidArguments, match=r"options\.colour"):
        one.encode((1, b""), {"colour": 3})


# --- What would not come back ---------------------------------------------------------------------------------------


def holding_itself() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def nested(depth: int) -> list[Any]:
    items: list[Any] = []
    for _ in range(depth):
        items = [items]
    return items


def doubled(levels: int) -> list[Any]:
    items: list[Any] = []
    for _ in range(levels):
        items = [items, items]
    return items


class Whole(BaseModel):
    number: float | None
    data: bytes = b""
    anything: Any = None


class Leaky(BaseModel):
    kept: int
    dropped: int = Field(default=0, exclude=True)


class Dog(Item):
    legs: int = 4


class NotANumber(float):
    pass


REFUSED: list[tuple[Any, Any, str]] = [
    (Any, (1, 2), "argument value: a tuple would come back as a list; annotate 'value' with its type"),
    (Any, {"a": [1, {2}]}, "argument value['a'][1]: a set would come back as a list"),
    (Any, {1: 2}, "the key 1 is a int and would come back as str"),
    (Any, b"x", "a bytes would not come back as one"),
    (Any, Colour.RED, "a Colour would not come back as one"),
    (Any, Tone.DARK, "a Tone would not come back as one"),
    (Any, Level.LOW, "a Level would not come back as one"),
    (Any, NotANumber(1), "a NotANumber would not come back as one"),
    (Any, datetime(2026, 1, 1), "a datetime would not come back as one"),
    (Any, Item(name="a"), "a Item would not come back as one"),
    (Any, object(), "a object would not come back as one"),
    (Any, 2**63, "outside 64 bits"),
    (Any, math.nan, "nan cannot be written: JSON has no NaN"),
    (Any, [-math.inf], "argument value[0]: -inf cannot be written"),
    (Any, "\ud800", "half of a surrogate pair"),
    (dict[str, Any], {"a": {"\udfff": 1}}, "half of a surrogate pair"),
    (Any, holding_itself(), "nested more than 100 levels deep, or holds itself"),
    (list[Any], holding_itself(), "nested more than 100 levels deep, or holds itself"),
    (Any, nested(101), "nested more than 100 levels deep"),
    (Any, nested(100_000), "nested more than 100 levels deep"),
    (Any, doubled(99), "too many values"),
    (dict[str, Any], {"a": (1,)}, "argument value['a']: a tuple"),
    (list[dict[str, Any]], [{"a": {1}}], "argument value[0]['a']: a set"),
    (tuple[Any, ...], ((1,),), "argument value[0]: a tuple would come back as a list"),
    (set[Any], {Tone.DARK}, "items would come back as another type"),
    (Any | None, (1,), "a tuple would come back as a list"),
    (list[Any] | None, [(1,)], "a tuple would come back as a list"),
    (float, math.nan, "value: Input should be a finite number"),
    (float | None, math.inf, "finite number"),
    (Annotated[float, Field(allow_inf_nan=True)], math.nan, "NaN and infinity cannot be written"),
    (Annotated[float, Field(allow_inf_nan=True)], -math.inf, "NaN and infinity cannot be written"),
    (Decimal, Decimal("NaN"), "finite number"),
    (Whole, Whole(number=math.nan), "argument value.number: nan cannot be written"),
    (list[Whole], [Whole(number=1), Whole(number=math.inf)], "argument value[1].number: inf cannot be written"),
    (Whole, Whole(number=1, data=b"\xff"), "value: the bytes at .data are not UTF-8; add to Whole: model_config = "),
    (Whole, Whole(number=1, anything=(1,)), "value.anything: a tuple would come back as a list"),
    (Whole, Whole(number=1, anything={"a": {"b": Tone.DARK}}), "value.anything['a']['b']: a Tone would come back as"),
    (Whole, Whole(number=1, anything="\ud800"), "the text at .anything has half of a surrogate pair"),
    (Size, Size(math.nan), "argument value.width: NaN and infinity cannot be written"),
    (list[Size], [Size(1), Size(math.inf)], "argument value[1].width: NaN and infinity cannot"),
    (Leaky, Leaky(kept=1, dropped=5), "value.dropped: this int would come back as another one"),
    (Item, Dog(name="a"), "a Dog would come back as a Item"),
    (list[Item], [Dog(name="a")], "value[0]: a Dog would come back as a Item"),
    (SecretStr, SecretStr("a"), "a SecretStr is masked when it is stored"),
    (Path | str, "a", "a str would come back as a PosixPath"),
    (bytes | str, "abcd", "a str would come back as a bytes"),
    (Decimal | str, "1.5", "a str would come back as a Decimal"),
    (Tone | str, Tone.DARK, "a Tone would come back as a str"),
    (str, "a\ud800", "half of a surrogate pair"),
    (list[str], ["a", "\udfff"], "the text at [1] has half"),
    (dict[str, int], {"a": 1, "\ud800": 2}, "argument value (key '\\ud800'): a text has half of a surrogate pair"),
    (dict[str, Any], {"\ud800": 2}, "a text has half of a surrogate pair"),
    (dict[str, dict[str, int]], {"\ufffd": {"\ud800": 2}}, "a text has half of a surrogate pair"),
    (int, 10**4_301, "could not be read back"),
    (list[int], [1, 10**5_000], "could not be read back"),
    (datetime, datetime(1880, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")), "this datetime would come back as another one"),
    (dict[tuple[int, int], int], {(1, 2): 3}, "could not be read back"),
    (dict[int | None, int], {None: 3}, "could not be read back"),
    (dict[str | int, int], {1: 2, "1": 3}, "value"),
    (Callable[[], int], print, "Unable to serialize unknown type"),
]


@pytest.mark.skipif(sys.platform == "win32", reason="paths have another type there")
@pytest.mark.parametrize(("annotation", "value", "said"), REFUSED, ids=lambda value: repr(type(value)))
def test_a_value_that_would_not_come_back_is_refused_with_its_place(annotation: Any, value: Any, said: str) -> None:
    with pytest.raises(PayloadError) as caught:
        taking(annotation).encode((value,), {})
    assert str(caught.value).startswith("task() cannot store its argument")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 600


class Tree(BaseModel):
    children: list[Tree] = []


def tree(depth: int) -> Tree:
    one = Tree()
    for _ in range(depth):
        one = Tree(children=[one])
    return one


def test_typed_values_may_be_nested_as_deep_as_untyped_ones() -> None:
    assert round_trip(Tree, tree(49)) == tree(49)
    for depth in (51, 120, 300, 5_000):
        with pytest.raises(PayloadError, match="deep"):
            taking(Tree).encode((tree(depth),), {})


def test_a_model_that_holds_itself_is_refused() -> None:
    one = Tree()
    one.children.append(one)
    with pytest.raises(PayloadError, match="holds itself"):
        taking(Tree).encode((one,), {})
    items: dict[str, Any] = {}
    items["children"] = [items]
    with pytest.raises(PayloadError, match="cannot store its arguments"):
        taking(Tree).encode((items,), {})


def test_a_model_changed_into_what_it_cannot_be_is_refused() -> None:
    item = Item(name="a")
    item.name = 5  # type: ignore[assignment]
    with pytest.raises(PayloadError, match=r"could not be read back: value\.name"):
        taking(Item).encode((item,), {})


def test_a_call_near_the_recursion_limit_is_refused_and_does_no_harm() -> None:
    value = nested(90)

    def dive() -> None:
        try:
            dive()
        except RecursionError:
            one.encode((value,), {})
            raise

    one = taking(list[Any] | None)
    with pytest.raises((RecursionError, PayloadError)):
        dive()
    assert one.decode(one.encode((value,), {})) == ((), {"value": value})


# --- Payloads -------------------------------------------------------------------------------------------------------


def test_a_payload_is_a_version_byte_and_compact_json() -> None:
    assert signature(thumbnail).encode((b"\xff",), {"width": 64}) == b'\x01{"image":"_w==","width":64}'


def test_defaults_are_those_of_the_code_that_runs_the_job() -> None:
    def before(x: int, y: int = 1) -> int:
        return x + y

    def after(x: int, y: int = 2) -> int:
        return x + y

    payload = signature(before).encode((10,), {})
    assert b"y" not in payload
    later = signature(after)
    assert later.call(after, None, later.decode(payload)) == 12
    given = signature(before).encode((10,), {"y": 1})
    assert later.call(after, None, later.decode(given)) == 11


def test_a_payload_may_be_as_large_as_the_limit_and_no_larger() -> None:
    def task(text: str) -> None: ...

    one = signature(task, name="mail.send")
    size = len(one.encode(("x" * 1_000,), {}))
    one.encode(("x" * 1_000,), {}, max_payload=size)
    with pytest.raises(PayloadTooLarge) as caught:
        one.encode(("x" * 1_000,), {}, max_payload=size - 1)
    assert str(caught.value).startswith("mail.send() has 1,012 bytes of arguments, the limit is 1,011; store the data")
    with pytest.raises(PayloadTooLarge, match="limit is 1,048,576"):
        one.encode(("x" * 1_048_576,), {})


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "empty"),
        (b"\x07{}", "it has version 7; this release knows 1 (JSON) and 2 (a serializer's)"),
        (b"{}", "it has version 123"),
        (b"\x02{}", "written through a serializer, and this application has none"),
        (b"\x80\x04K\x01.", "it has version 128"),
        (b"\x01", "Invalid JSON"),
        (b"\x01null", "Input should be an object, not None"),
        (b"\x01[1]", "Input should be an object, not a list"),
        (b"\x01{}", "number: Field required"),
        (b'\x01{"number":"x"}', "number: Input should be a valid integer"),
        (b'\x01{"number":1,"x":2}', "x: Extra inputs are not permitted"),
        (b'\x01{"number":1e999}', "number"),
        (b'\x01{"number":' + b"9" * 5_000 + b"}", "Invalid JSON"),
        (b'\x01{"number":1,"data":NaN}', "values that JSON does not have"),
        (b'\x01{"number":1,"data":[1e999]}', "values that JSON does not have"),
        (b'\x01{"number":1,"data":[18446744073709551616]}', "values that JSON does not have"),
        (b'\x01{"number":1,"data":' + b"[" * 150 + b"]" * 150 + b"}", "nested too deep"),
        (b'\x01{"number":1,"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "recursion limit"),
        (b'\x01{"number":1,"data":"\xff"}', "Invalid JSON"),
        (b'\x01{"number":1,"data":"\\ud800"}', "Invalid JSON"),
    ],
)
def test_a_payload_that_is_not_ours_is_an_error_and_nothing_more(payload: bytes, said: str) -> None:
    def task(number: int, data: Any = None) -> None: ...

    with pytest.raises(PayloadError, match="the payload of 'task' cannot be read: ") as caught:
        signature(task).decode(payload)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_forged_keyword_does_not_take_the_place_of_a_typed_argument() -> None:
    def task(number: int, **more: Any) -> int:
        return number

    one = signature(task)
    decoded = one.decode(b'\x01{"number":1,"more":{"number":"forged"}}')
    assert one.call(task, None, decoded) == 1


@given(st.binary(max_size=100))
@settings(max_examples=300)
def test_random_bytes_are_decoded_or_refused(payload: bytes) -> None:
    one = signature(f_all)
    for prefix in (b"", b"\x01", b'\x01{"a":'):
        try:
            args, kwargs = one.decode(prefix + payload)
        except PayloadError:
            continue
        assert type(args) is tuple
        assert type(kwargs) is dict


def test_a_bomb_of_keys_is_read() -> None:
    one = taking(dict[str, Any])
    payload = one.encode(({f"key{number}": number for number in range(30_000)},), {})
    assert len(one.decode(payload)[1]["value"]) == 30_000


def test_nothing_that_a_payload_names_is_imported_or_called(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = {"__reduce__": ["os.system", ["exit 1"]], "py/object": "os.system", "$type": "subprocess.Popen"}
    payload = b"\x01" + json.dumps({"value": hostile}).encode()
    one = taking(Any)
    imported: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr("builtins.__import__", lambda name, *rest: imported.append(name))
        decoded = one.decode(payload)
    assert decoded == ((), {"value": hostile})
    assert not imported


def test_arguments_go_through_the_serializer_of_the_application() -> None:
    class Reversing:
        def dumps(self, data: bytes) -> bytes:
            return data[::-1]

        def loads(self, data: bytes) -> bytes:
            return data[::-1]

    one = signature(thumbnail, envelope=Envelope(Reversing()))
    payload = one.encode((b"\xff",), {})
    assert payload == b'\x02}"==w_":"egami"{'
    assert one.decode(payload) == ((), {"image": b"\xff"})
    assert one.decode_result(one.encode_result(None)) is None


# --- Results --------------------------------------------------------------------------------------------------------


async def test_results_come_back_by_the_return_annotation() -> None:
    def task() -> dict[Colour, list[Size]]: ...  # type: ignore[empty-body]

    one = signature(task)
    value = {Colour.RED: [Size(1.5, b"\xff", {"a"})]}
    assert one.decode_result(one.encode_result(value)) == value


def test_a_result_without_annotation_comes_back_as_json() -> None:
    def task():  # type: ignore[no-untyped-def]
        ...

    one = signature(task)
    stored = one.encode_result({"at": datetime(2026, 1, 1), "pair": (1, Item(name="a")), "tags": {"x"}})
    assert one.decode_result(stored) == {
        "at": "2026-01-01T00:00:00",
        "pair": [1, {"name": "a", "when": None, "parts": []}],
        "tags": ["x"],
    }


@pytest.mark.parametrize("annotation", [int, Item, list[int], None, Any, Size])
def test_none_is_always_a_result(annotation: Any) -> None:
    def task() -> Any: ...

    task.__annotations__["return"] = annotation
    one = signature(task)
    assert one.encode_result(None) == b"\x01null"
    assert one.decode_result(b"\x01null") is None


@pytest.mark.parametrize(
    ("annotation", "item"),
    [(AsyncIterator[Size], Size), (AsyncGenerator[Size, None], Size), (AsyncGenerator[Size], Size), (Any, None)],
    ids=["iterator", "generator", "short generator", "unsaid"],
)
def test_items_of_an_async_generator_come_back_by_its_annotation(annotation: Any, item: Any) -> None:
    async def task() -> Any:
        yield Size(1)

    task.__annotations__["return"] = annotation
    one = signature(task)
    assert one.streams
    back = one.decode_item(one.encode_item(Size(1, b"\xff")))
    assert back == Size(1, b"\xff") if item else back == {"width": 1, "data": "_w==", "tags": []}
    assert one.decode_result(one.encode_result(None)) is None


def test_a_plain_function_may_return_an_awaitable() -> None:
    def task() -> Awaitable[Colour]: ...  # type: ignore[empty-body]

    one = signature(task)
    assert not one.streams
    assert one.decode_result(one.encode_result(Colour.RED)) is Colour.RED


# --- Speed ----------------------------------------------------------------------------------------------------------


def test_the_way_of_a_small_job_is_short(report: Report) -> None:
    def task(x: int) -> int: ...  # type: ignore[empty-body]

    one = signature(task)
    payload, result = one.encode((3,), {}), one.encode_result(3)
    limits = {
        "encode (x: int)": (lambda: one.encode((3,), {}), 3.0),
        "decode (x: int)": (lambda: one.decode(payload), 2.0),
        "encode_result int": (lambda: one.encode_result(3), 1.0),
        "decode_result int": (lambda: one.decode_result(result), 1.0),
    }
    for name, (call, limit) in limits.items():
        taken = quickest(call)
        report(name, taken, "µs")
        # Machines that run the suite are slower, and shared: this finds a mistake, not a percent.
        assert taken < limit * 10


def quickest(call: Callable[[], object], runs: int = 5_000) -> float:
    """Microseconds of processor time of one call, the best of several rounds."""
    return min(timeit.repeat(call, timer=process_time, number=runs, repeat=5)) / runs * 1e6
