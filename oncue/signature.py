"""What a task function takes and gives, read once when it is registered.

A `Signature` binds arguments as a call would, checks and stores them, reads them back in the worker, and calls the
function with them; it writes and reads results and streamed items by the return annotation. What the source says is for
`oncue.declaration`, how values become bytes for `oncue.serializers`, what they may lose for `oncue.fidelity`.

`encode` and `decode` run for every job. What can be known before is computed in `Signature.of`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from pydantic import ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from oncue.declaration import REQUIRED, Declaration, Kind, Parameter
from oncue.errors import ConfigError, InvalidArguments, InvalidJob, PayloadError, PayloadTooLarge
from oncue.failures import safe_repr, summary
from oncue.fidelity import difference, find_foreign, json_problem, native, suspicious, where_unwritable
from oncue.serializers import (
    MAX_PAYLOAD,
    PLAIN,
    Codec,
    Envelope,
    arguments_adapter,
    definitions_of,
    error_lines,
    value_adapter,
    why_not_written,
)
from oncue.traits import Traits

__all__ = ["Decoded", "Signature"]

Decoded: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments ready for a call, without the context: by position, by name."""

# Values that pydantic accepts, but JSON cannot carry: a matter of storing them, not of the task's signature.
_UNSTORABLE: Final = frozenset({"finite_number", "string_unicode", "recursion_loop"})


class Signature:
    """The analysed signature of one task function; made by `Signature.of`, then unchanged and safe to share.

    Attributes:
        name: the task, for messages.
        parameters: those that a caller gives.
        context: name of the parameter that takes the context, None if there is none.
        streams: whether the function is an async generator, whose items are streamed.
    """

    __slots__ = (
        "_checked",
        "_codec",
        "_context_at",
        "_defaults",
        "_dump",
        "_envelope",
        "_keywords",
        "_load",
        "_named",
        "_native",
        "_plain",
        "_positional",
        "_positional_only",
        "_required",
        "_rest",
        "_text",
        "_traits",
        "_validate",
        "context",
        "name",
        "parameters",
        "streams",
    )

    def __init__(self, declaration: Declaration, *, envelope: Envelope = PLAIN) -> None:
        self.name = declaration.name
        self.parameters = declaration.parameters
        self.context = declaration.context
        self.streams = declaration.streams
        self._context_at = declaration.context_at
        self._text = declaration.text
        self._envelope = envelope
        self._prepare_binding()
        self._prepare_storing()
        self._codec = self._prepare_codec(declaration.returns)

    @classmethod
    def of(
        cls,
        fn: Callable[..., Any],
        *,
        context_type: type | None,
        name: str | None = None,
        envelope: Envelope = PLAIN,
    ) -> Signature:
        """Analyse a function.

        Args:
            fn: async or plain function, async generator function, bound method, partial or object with `__call__`.
            context_type: a parameter annotated with this class, a subclass, or either or None, takes the context.
            name: the task, for messages; the function's own name if absent.
            envelope: what stored bytes go through.

        Raises:
            ConfigError: an annotation cannot be resolved or stored, or there are two contexts.
        """
        return cls(Declaration.of(fn, context_type=context_type, name=name), envelope=envelope)

    def describe(self) -> str:
        """Return the signature as a person writes it, such as `(image: bytes, width: int = 320) -> Thumbnail`."""
        return self._text

    # --- Binding ----------------------------------------------------------------------------------------------------

    def _prepare_binding(self) -> None:
        by_kind: dict[Kind, list[Parameter]] = {}
        for parameter in self.parameters:
            by_kind.setdefault(parameter.kind, []).append(parameter)
        only, either = by_kind.get(Kind.POSITIONAL_ONLY, []), by_kind.get(Kind.POSITIONAL_OR_KEYWORD, [])
        self._positional_only = tuple(p.name for p in only)
        self._positional = tuple(p.name for p in only + either)
        self._named = frozenset(p.name for p in either + by_kind.get(Kind.KEYWORD_ONLY, []))
        self._required = frozenset(p.name for p in self.parameters if p.required)
        self._defaults = {p.name: p.default for p in self.parameters if p.default is not REQUIRED}
        rest, keywords = by_kind.get(Kind.VAR_POSITIONAL), by_kind.get(Kind.VAR_KEYWORD)
        self._rest = rest[0].name if rest else None
        self._keywords = keywords[0].name if keywords else None
        # Everything can go by name: what was stored is what the call gets.
        self._plain = not only and not rest and not keywords

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return what each parameter gets; those left to their default, and empty `*args` and `**kwargs`, are absent.

        Raises `InvalidArguments` where the call would raise `TypeError`, and says what the task takes.
        """
        # Not `inspect.Signature.bind`: that takes three times as long.
        positional = self._positional
        arguments: dict[str, Any] = dict(zip(positional, args, strict=False))
        if len(args) > len(positional):
            if self._rest is None:
                raise self._refused(_too_many(len(positional), len(args)))
            arguments[self._rest] = tuple(args[len(positional) :])
        if kwargs:
            if self._named.issuperset(kwargs) and arguments.keys().isdisjoint(kwargs):
                arguments.update(kwargs)
            else:
                self._bind_keywords(arguments, kwargs)
        if not self._required <= arguments.keys():
            missing = [repr(p.name) for p in self.parameters if p.required and p.name not in arguments]
            noun = "argument" if len(missing) == 1 else "arguments"
            raise self._refused(f"is missing the {noun} {', '.join(missing)}")
        return arguments

    def _bind_keywords(self, arguments: dict[str, Any], kwargs: Mapping[str, Any]) -> None:
        others: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name == self.context:
                raise self._refused(f"got the argument {name!r}, which the worker gives")
            if name in self._named:
                if name in arguments:
                    raise self._refused(f"got the argument {name!r} twice, by position and by name")
                arguments[name] = value
            elif self._keywords is not None:
                others[name] = value
            elif name in self._positional_only:
                raise self._refused(f"takes the argument {name!r} by position only")
            else:
                raise self._refused(f"got an unexpected argument {safe_repr(name, 80)}", close_to=name)
        if self._keywords is not None and others:
            arguments[self._keywords] = others

    def _refused(self, what: str, *, close_to: str | None = None) -> InvalidArguments:
        message = f"{self.name}() {what}; it takes {self._text}"
        near = difflib.get_close_matches(close_to[:100], sorted(self._named), n=1) if close_to else []
        return InvalidArguments(f"{message}. Did you mean {near[0]!r}?" if near else message)

    # --- Storing ----------------------------------------------------------------------------------------------------

    def _prepare_storing(self) -> None:
        try:
            adapter = arguments_adapter({p.name: (p.stored_as, p.required) for p in self.parameters})
        except Exception as error:
            raise self._unusable(error) from None
        schema, definitions = definitions_of(adapter)
        traits = {name: Traits.of(field["schema"], definitions) for name, field in schema["fields"].items()}
        for name, one in traits.items():
            if one.lazy:
                raise ConfigError(
                    f"task {self.name!r}: {name!r} has an iterator, which can be read only once; make it a list"
                )
        self._validate = adapter.validator.validate_python
        self._load = adapter.validator.validate_json
        self._dump = adapter.serializer.to_json
        # Which parameters need which check; most tasks need none.
        self._native = tuple(name for name, one in traits.items() if one.native)
        self._checked = tuple(
            (name, one.untyped or one.choice) for name, one in traits.items() if not one.native and not one.exact
        )
        self._traits = Traits(
            nested=any(one.nested for one in traits.values()),
            numbers=any(one.numbers for one in traits.values()),
            floats=any(one.floats for one in traits.values()),
        )

    def _prepare_codec(self, returns: Any) -> Codec:
        """Return what writes and reads results, or streamed items."""
        try:
            what = f"{'item' if self.streams else 'result'} of {self.name!r}"
            codec = Codec(returns, what=what, envelope=self._envelope)
        except Exception as error:
            raise ConfigError(
                f"task {self.name!r}: what it returns cannot be stored as JSON ({_reason(error)}); annotate it with "
                f"a type that pydantic knows, such as a BaseModel, or return nothing; it is {self._text}"
            ) from None
        if codec.traits.lazy:
            raise ConfigError(
                f"task {self.name!r}: what it returns can be read only once; return a list, or make it an async "
                f"generator, whose items are streamed; it is {self._text}"
            )
        return codec

    def _unusable(self, error: Exception) -> ConfigError:
        """Say which annotation pydantic cannot use."""
        for parameter in self.parameters:
            try:
                value_adapter(parameter.stored_as)
            except Exception as reason:
                return ConfigError(
                    f"task {self.name!r}: {parameter.text} cannot be stored as JSON ({_reason(reason)}); "
                    "annotate it with a type that pydantic knows, such as a BaseModel, or pass an id"
                )
        return ConfigError(f"task {self.name!r}: {self._text} cannot be stored ({_reason(error)})")

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any], *, max_payload: int = MAX_PAYLOAD) -> bytes:
        """Bind and check arguments and return what is stored of them.

        They are coerced as pydantic does (`"3"` is 3 for an `int`), and what is stored comes back equal and with its
        type. Defaults that the call left out are not stored: a job takes those of the code that runs it, so that
        a changed default takes effect for jobs that wait, and a payload holds only what its caller said.

        Raises:
            InvalidArguments: they do not fit the signature.
            PayloadError: they fit, but would not come back from JSON as they are.
            PayloadTooLarge: the payload has more than `max_payload` bytes.
        """
        arguments = self.bind(args, kwargs)
        try:
            arguments = self._validate(arguments)
        except ValidationError as error:
            refusal = self._unfit(error)
        except Exception as error:
            # A validator of the user's raised something else than pydantic expects.
            raise InvalidArguments(f"{self.name}() could not check its arguments: {summary(error)}") from error
        else:
            return self._store(arguments, max_payload)
        raise refusal  # outside the handler: pydantic's error shows values, also those that are secret

    def _store(self, arguments: dict[str, Any], max_payload: int) -> bytes:
        for name in self._native:
            # A value takes two bytes of JSON at least: itself and what parts it from the next.
            if name in arguments and not native(arguments[name], most=max_payload // 2):
                path, foreign = find_foreign(arguments[name])
                raise self._unstorable(f"{name}{path}", f"{foreign}; annotate {name!r} with its type")
        try:
            data = self._dump(arguments, by_alias=False, round_trip=True, warnings=False)
            problem = json_problem(arguments, data, self._traits) if suspicious(data) else None
        except Exception as error:
            problem = summary(error)
        if problem:
            raise self._unwritable(arguments, problem)
        if self._checked:
            self._check_return(arguments, data)
        payload = self._envelope.seal(data)
        if len(payload) > max_payload:
            raise PayloadTooLarge(
                f"{self.name}() has {len(payload):,} bytes of arguments, the limit is {max_payload:,}; "
                "store the data beside the queue, in a file or a bucket, and pass its key"
            )
        return payload

    def _check_return(self, arguments: dict[str, Any], data: bytes) -> None:
        """Read what was written, and compare the arguments whose types allow that something is lost."""
        try:
            again = self._load(data, by_alias=False, by_name=True)
            for name, strict in self._checked:
                if name in arguments and (loss := difference(arguments[name], again[name], strict=strict)):
                    path, what = loss
                    refusal = self._unstorable(f"{name}{path}", what)
                    break
            else:
                return
        except ValidationError as error:
            refusal = self._unreturned("; ".join(error_lines(error)))
        except RecursionError:
            refusal = self._unreturned("they are nested too deep")
        except Exception as error:
            refusal = self._unreturned(summary(error))
        raise refusal

    def _unreturned(self, problem: str) -> PayloadError:
        return PayloadError(f"{self.name}() cannot store its arguments: they could not be read back: {problem}")

    def _unfit(self, error: ValidationError) -> InvalidJob:
        lines = "\n  ".join(error_lines(error))
        try:
            unstorable = all(
                one["type"] in _UNSTORABLE for one in error.errors(include_input=False, include_context=False)
            )
        except Exception:
            unstorable = False
        if unstorable:
            return PayloadError(f"{self.name}() cannot store its arguments:\n  {lines}")
        return InvalidArguments(f"{self.name}() got arguments that do not fit {self._text}:\n  {lines}")

    def _unwritable(self, arguments: dict[str, Any], problem: str) -> PayloadError:
        """Say in which argument the problem is."""
        for name, value in arguments.items():
            try:
                data = self._dump({name: value}, by_alias=False, round_trip=True, warnings=False)
                if found := json_problem(value, data, self._traits):
                    return self._unstorable(name + where_unwritable(value), found)
            except Exception as reason:
                return self._unstorable(name, why_not_written(value, reason))
        return PayloadError(f"{self.name}() cannot store its arguments: {problem}")

    def _unstorable(self, place: str, problem: str) -> PayloadError:
        return PayloadError(f"{self.name}() cannot store its argument {place}: {problem}")

    # --- Reading and calling ----------------------------------------------------------------------------------------

    def decode(self, payload: bytes) -> Decoded:
        """Return the arguments that were stored, with the types of the annotations, or raise `PayloadError`."""
        try:
            arguments: dict[str, Any] = self._load(self._envelope.open(payload), by_alias=False, by_name=True)
        except ValidationError as error:
            problem = "; ".join(error_lines(error))
        except PayloadError as error:
            problem = str(error)
        except Exception as error:
            problem = summary(error)
        else:
            # Only hands that are not ours write what `encode` refuses.
            if all(native(arguments[name], most=len(payload)) for name in self._native if name in arguments):
                return ((), arguments) if self._plain else self._arranged(arguments)
            problem = "it has values that JSON does not have, such as NaN, or is nested too deep"
        raise PayloadError(f"the payload of {self.name!r} cannot be read: {problem}; it takes {self._text}")

    def _arranged(self, arguments: dict[str, Any]) -> Decoded:
        """Put what must go by position there; a gap before it is filled with the default."""
        rest: Sequence[Any] = arguments.pop(self._rest, ()) if self._rest else ()
        others: dict[str, Any] = arguments.pop(self._keywords, {}) if self._keywords else {}
        by_position = self._positional if rest else self._positional_only
        last = max((i for i, name in enumerate(by_position) if name in arguments), default=-1)
        if rest or self._context_at > last:
            last = len(by_position) - 1
        args = [arguments.pop(name) if name in arguments else self._defaults[name] for name in by_position[: last + 1]]
        return (*args, *rest), {**others, **arguments}

    def call(self, fn: Callable[..., Any], ctx: Any, decoded: Decoded) -> Any:
        """Call the function: what comes back is its result, its coroutine or its async generator."""
        args, kwargs = decoded
        if self.context is None:
            return fn(*args, **kwargs)
        at = self._context_at
        if 0 <= at <= len(args):
            return fn(*args[:at], ctx, *args[at:], **kwargs)
        return fn(*args, **{self.context: ctx}, **kwargs)

    # --- Results ----------------------------------------------------------------------------------------------------

    def encode_result(self, value: Any, *, limit: int = MAX_PAYLOAD) -> bytes:
        """Return the bytes to store of what the function returned, or of one item that it streamed.

        Raises `PayloadError`: it cannot be written as JSON, or it has more than `limit` bytes.
        """
        return self._codec.encode(value, limit)

    def decode_result(self, payload: bytes) -> Any:
        """Return a stored result or item by the return annotation, or raise `PayloadError`."""
        return self._codec.decode(payload)

    # A task streams items or returns a result: what a generator ends with is None, which every codec writes.
    encode_item = encode_result
    decode_item = decode_result


def _reason(error: Exception) -> str:
    """Return why pydantic cannot use an annotation; its own advice is for models."""
    if isinstance(error, PydanticSchemaGenerationError):
        return "pydantic does not know its type"
    return summary(error).partition("\\n")[0]


def _too_many(most: int, given: int) -> str:
    if most == 0:
        return f"takes no arguments by position, not {given}"
    return f"takes at most {most} argument{'s' if most > 1 else ''} by position, not {given}"
