"""Values to bytes and back.

What a store keeps of arguments, results and streamed items is one version byte, then JSON as pydantic writes it:

    01  JSON
    02  JSON that went through the application's own `Serializer`

A reader that does not know the byte says so, and the next format can come beside this one. There is no pickle here, and
nothing in a payload is imported, looked up or run: bytes only ever become values of the types that the reader names.

Which annotations a task has is for `oncue.signature`; whether a value survives is for `oncue.fidelity`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any, Final, Protocol, TypeAlias

from pydantic import ConfigDict, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import core_schema

from oncue.errors import PayloadError, PayloadTooLarge
from oncue.failures import looks_secret, printable, safe_repr, summary
from oncue.fidelity import BROKEN_TEXT, find_value, is_broken_text, json_problem, suspicious
from oncue.traits import Traits

__all__ = [
    "MAX_PAYLOAD",
    "PLAIN",
    "Codec",
    "Envelope",
    "Serializer",
]

MAX_PAYLOAD: Final = 1_048_576
"""Bytes of a payload or a result, unless the application says otherwise."""

_JSON: Final = b"\x01"
_CUSTOM: Final = b"\x02"


class Serializer(Protocol):
    """What an application puts between JSON and the store: encryption, compression, another format.

    Both methods get all of one payload and are called from the event loop; what they raise becomes a `PayloadError`.
    `loads(dumps(data)) == data` must hold, also in the next release and in every process that shares the store. One
    that inflates must bound what it makes: the bytes come from the store.
    """

    def dumps(self, data: bytes) -> bytes:
        """Return what to store for this JSON (UTF-8)."""
        ...

    def loads(self, data: bytes) -> bytes:
        """Return the JSON from what was stored."""
        ...


class Envelope:
    """Puts the version byte on stored bytes and takes it off: the only place that knows it.

    Args:
        serializer: the application's own, None for plain JSON.
        reads_plain: whether plain JSON is still read though there is a serializer. For the time after one was added,
            while jobs from before are in the store. It is off by default, because a serializer that authenticates
            would prove nothing if unsealed payloads passed as well.

    Attributes:
        seal: returns what to store for this JSON. An attribute, because it runs twice for every job: without a
            serializer it is an operation of bytes alone.
    """

    __slots__ = ("_reads_plain", "_serializer", "seal")

    seal: Callable[[bytes], bytes]

    def __init__(self, serializer: Serializer | None = None, *, reads_plain: bool = False) -> None:
        self._serializer = serializer
        self._reads_plain = reads_plain or serializer is None
        self.seal = _JSON.__add__ if serializer is None else functools.partial(_sealed, serializer)

    @property
    def custom(self) -> bool:
        """Whether stored bytes go through a serializer of the application's own."""
        return self._serializer is not None

    def open(self, payload: bytes) -> bytes:
        """Return the JSON of what was stored, or raise `PayloadError`."""
        version = payload[:1]
        if version == _JSON and self._reads_plain:
            return payload[1:]
        if version == _CUSTOM and self._serializer is not None:
            try:
                return self._serializer.loads(payload[1:])
            except Exception as error:
                raise PayloadError(f"{_name(self._serializer)}.loads failed: {summary(error)}") from error
        raise PayloadError(self._stranger(version))

    def _stranger(self, version: bytes) -> str:
        if not version:
            return "it is empty: not even a version byte"
        if version == _JSON:
            return (
                f"it is plain JSON, but this application reads only what {_name(self._serializer)} wrote; "
                "for jobs from before it was set, pass reads_plain=True"
            )
        if version == _CUSTOM:
            return "it was written through a serializer, and this application has none: set the one it was written with"
        known = "1 (JSON) and 2 (a serializer's)"
        return f"it has version {version[0]}; this release knows {known}: was it written by a newer one?"


def _sealed(serializer: Serializer, data: bytes) -> bytes:
    try:
        return _CUSTOM + serializer.dumps(data)
    except Exception as error:
        raise PayloadError(f"{_name(serializer)}.dumps failed: {summary(error)}") from error


PLAIN: Final = Envelope()
"""JSON as it is."""


# Root configuration of everything that is stored. Dataclasses, TypedDicts and named tuples follow it; a pydantic model
# follows its own, which pydantic compiles when the class is made and which is not ours to change.
_SETTINGS: Final = ConfigDict(
    ser_json_bytes="base64",
    val_json_bytes="base64",
    # NaN is to be seen and refused: by default it would be written as null.
    ser_json_inf_nan="constants",
    allow_inf_nan=False,
)
_CORE_SETTINGS: Final = core_schema.CoreConfig(
    ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants", allow_inf_nan=False
)

Annotations: TypeAlias = dict[str, tuple[Any, bool]]
"""Parameter name to its annotation, and whether it must be given."""


class _Value:
    """Stands for an annotation where `TypeAdapter` takes no configuration: for models, dataclasses and TypedDicts."""

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return handler.generate_schema(self.annotation)


class _Arguments:
    """Stands for the arguments of a task: a dict with one typed field for each."""

    def __init__(self, annotations: Annotations) -> None:
        self.annotations = annotations

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        fields = {
            name: core_schema.typed_dict_field(handler.generate_schema(annotation), required=required)
            for name, (annotation, required) in self.annotations.items()
        }
        # Its own configuration again: a typed dict validates by this one, and serializes by the adapter's.
        return core_schema.typed_dict_schema(fields, extra_behavior="forbid", config=_CORE_SETTINGS)


def value_adapter(annotation: Any) -> TypeAdapter[Any]:
    """Return what validates and writes values of one annotation."""
    return TypeAdapter(Annotated[Any, _Value(annotation)], config=_SETTINGS)


def arguments_adapter(annotations: Annotations) -> TypeAdapter[dict[str, Any]]:
    """Return what validates and writes a dict of arguments; unknown names are refused."""
    return TypeAdapter(Annotated[dict[str, Any], _Arguments(annotations)], config=_SETTINGS)


def definitions_of(adapter: TypeAdapter[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an adapter's core schema and the definitions that its references name."""
    schema: dict[str, Any] = dict(adapter.core_schema)
    definitions: dict[str, Any] = {}
    while schema["type"] == "definitions":
        definitions.update({one["ref"]: one for one in schema["definitions"]})
        schema = schema["schema"]
    while schema["type"] == "definition-ref":
        schema = definitions[schema["schema_ref"]]
    return schema, definitions


class Codec:
    """Writes and reads values of one annotation: the results of a task, or the items that it streams.

    A value that is not what the annotation says is stored all the same, as pydantic writes it: a job that did its work
    does not fail because it returned a subclass, or a dict with the right keys. Reading is by the annotation.

    Args:
        annotation: a type; `Any` reads back as JSON's own values.
        what: begins the message of an error, such as `result of 'resize'`.
        envelope: what the bytes go through.
    """

    __slots__ = ("_dump", "_load", "_open", "_seal", "_traits", "_watched", "_what")

    def __init__(self, annotation: Any, *, what: str, envelope: Envelope = PLAIN) -> None:
        adapter = value_adapter(annotation)
        self._what = what
        self._dump = adapter.serializer.to_json
        self._load = adapter.validator.validate_json
        self._seal = envelope.seal
        self._open = envelope.open
        self._traits = Traits.of(*definitions_of(adapter))
        self._traits.floats = True  # whatever the annotation says, what is returned may be NaN
        self._watched = self._traits.model_floats

    @property
    def traits(self) -> Traits:
        """What is known of its values' way through JSON."""
        return self._traits

    def encode(self, value: Any, limit: int = MAX_PAYLOAD) -> bytes:
        """Return the bytes to store.

        Raises:
            PayloadError: it cannot be written, or not be read back by anyone.
            PayloadTooLarge: it would have more than `limit` bytes.
        """
        if value is None:
            data = b"null"
        else:
            try:
                # Field names rather than aliases, and no computed fields: what is written is what is read.
                data = self._dump(value, by_alias=False, round_trip=True, warnings=False)
                problem = json_problem(value, data, self._traits) if self._watched or suspicious(data) else None
            except Exception as error:
                problem = why_not_written(value, error)
            if problem is not None:
                raise PayloadError(f"{self._what} cannot be stored: {problem}")
        sealed = self._seal(data)
        if len(sealed) > limit:
            raise PayloadTooLarge(
                f"{self._what} has {len(sealed):,} bytes, the limit is {limit:,}; "
                "store it beside the queue, in a file or a bucket, and return its key"
            )
        return sealed

    def decode(self, payload: bytes) -> Any:
        """Return the value that was stored, or raise `PayloadError`."""
        try:
            data = self._open(payload)
            # None is always stored, whatever the annotation: a task that forgets to return has returned None.
            return None if data == b"null" else self._load(data, by_alias=False, by_name=True)
        except ValidationError as error:
            problem = "; ".join(error_lines(error))
        except Exception as error:
            problem = summary(error)
        raise PayloadError(f"{self._what} cannot be read: {problem}")


# --- What went wrong, in words --------------------------------------------------------------------------------------


def _is_binary(value: Any) -> bool:
    if isinstance(value, bytes):
        try:
            value.decode()
        except UnicodeDecodeError:
            return True
    return False


def why_not_written(value: Any, error: Exception) -> str:
    """Return why pydantic could not write a value: where in it the trouble is, and the way out."""
    text = summary(error)
    try:
        if "surrogates not allowed" in text and (found := find_value(value, is_broken_text)):
            return BROKEN_TEXT.replace("a text", f"the text{_at(found[0])}")
        if "utf-8" in text and (found := find_value(value, _is_binary)):
            owner = type(found[2]).__name__
            return (
                f"the bytes{_at(found[0])} are not UTF-8; add to {owner}: "
                "model_config = ConfigDict(ser_json_bytes='base64', val_json_bytes='base64')"
            )
    except Exception:
        return text
    if "Circular reference" in text or "depth exceeded" in text or isinstance(error, RecursionError):
        return "it holds itself, or is nested too deep"
    return text


def _at(path: str) -> str:
    return f" at {path}" if path else ""


_SHOWN: Final = (str, bytes, int, float, complex, type(None))
"""Values of these types are shown in errors. Others, such as dicts, may have secrets inside."""
_MOST_LINES: Final = 20


def error_lines(error: ValidationError) -> list[str]:
    """Return what did not fit, a line for each: where, what, and the value unless its name says that it is secret."""
    try:
        found = error.errors(include_url=False, include_context=False)
    except Exception as trouble:
        return [f"{error.error_count()} values do not fit ({summary(trouble)})"]
    lines = [_line(one["type"], one["loc"], one["msg"], one["input"]) for one in found[:_MOST_LINES]]
    if len(found) > _MOST_LINES:
        lines.append(f"… and {len(found) - _MOST_LINES} more")
    return lines


def _line(kind: str, place: tuple[int | str, ...], message: str, value: object) -> str:
    where = ".".join(printable(str(part), one_line=True) for part in place) or "payload"
    if any(isinstance(part, str) and looks_secret(part) for part in place):
        # A validator's own message may quote the value.
        return f"{where:.200}: {kind if kind in {'value_error', 'assertion_error'} else message} (value not shown)"
    text = printable(message, one_line=True)
    if kind in {"missing", "json_invalid", "extra_forbidden"}:
        return f"{where:.200}: {text:.300}"
    shown = safe_repr(value, 80) if isinstance(value, _SHOWN) else f"a {type(value).__name__}"
    return f"{where:.200}: {text:.300}, not {shown}"


def _name(serializer: object) -> str:
    return type(serializer).__name__
