"""What the source of a task function says: its parameters, which of them takes the context, and what it returns.

Read once, when a task is registered. What is done with it is for `oncue.signature`.
"""

from __future__ import annotations

import asyncio
import collections.abc
import functools
import inspect
import re
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType, NoneType, UnionType
from typing import Annotated, Any, Final, Never, NoReturn, Union, get_args, get_origin

from oncue.errors import ConfigError
from oncue.failures import looks_secret, printable, safe_repr, summary

__all__ = ["Declaration", "Kind", "Parameter"]

Kind = inspect._ParameterKind
REQUIRED: Final = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a task, the context left out.

    Attributes:
        annotation: resolved; `Any` if there is none.
        default: `REQUIRED` if it must be given.
        text: as `describe` shows it.
    """

    name: str
    kind: Kind
    annotation: Any
    default: Any
    text: str

    @property
    def required(self) -> bool:
        """Whether a call must give it."""
        return self.default is REQUIRED and self.kind not in (Kind.VAR_POSITIONAL, Kind.VAR_KEYWORD)

    @property
    def stored_as(self) -> Any:
        """The annotation of what is stored for it: a list for `*args`, a dict for `**kwargs`."""
        annotation = self.annotation
        if get_origin(annotation) is typing.Unpack:  # **options: Unpack[Options]
            return get_args(annotation)[0]
        if getattr(annotation, "__unpacked__", False):  # *pair: *tuple[int, str]
            return tuple[get_args(annotation)]  # type: ignore[misc]
        if self.kind is Kind.VAR_POSITIONAL:
            return list[annotation]  # type: ignore[valid-type]
        if self.kind is Kind.VAR_KEYWORD:
            return dict[str, annotation]  # type: ignore[valid-type]
        return _storable(annotation)


@dataclass(frozen=True, slots=True)
class Declaration:
    """How a task function is declared; made by `Declaration.of`.

    Attributes:
        name: the task, for messages.
        parameters: those that a caller gives, in order: the context is left out.
        context: name of the parameter that takes the context, None if there is none.
        context_at: how many positional parameters stand before the context; -1 if it goes by name, or is not there.
        streams: whether the function is an async generator, whose items are streamed.
        returns: type of the results, or of the items that are streamed; `Any` if nothing is said.
        text: the whole as a person writes it, such as `(image: bytes, width: int = 320) -> Thumbnail`.
    """

    name: str
    parameters: tuple[Parameter, ...]
    context: str | None
    context_at: int
    streams: bool
    returns: Any
    text: str

    @classmethod
    def of(cls, fn: Callable[..., Any], *, context_type: type | None, name: str | None = None) -> Declaration:
        """Read a function; raises `ConfigError` if an annotation cannot be resolved or there are two contexts."""
        core = _unwrapped(fn)
        name = name or _name(fn, core)
        if inspect.isgeneratorfunction(core):
            raise ConfigError(f"task {name!r} is a generator; make it async (async def … yield) to stream its items")
        streams = inspect.isasyncgenfunction(core)
        try:
            declared = list(inspect.signature(fn).parameters.values())
        except (TypeError, ValueError) as error:
            raise ConfigError(f"task {name!r}: its signature cannot be read ({error}); wrap it in a function") from None
        hints = _hints(core, name)
        contexts = [one for one in declared if context_type and _is_context(hints.get(one.name), context_type)]
        if len(contexts) > 1:
            two = f"{contexts[0].name!r} and {contexts[1].name!r}"
            raise ConfigError(f"task {name!r} has two contexts, {two}; keep one")
        context = contexts[0] if contexts else None
        by_position = context is not None and context.kind is not Kind.KEYWORD_ONLY
        parameters = tuple(_parameter(one, hints.get(one.name, Any)) for one in declared if one is not context)
        raw = getattr(core, "__annotations__", {})
        return cls(
            name=name,
            parameters=parameters,
            context=context.name if context else None,
            context_at=declared.index(context) if context and by_position else -1,
            streams=streams,
            returns=_returned(hints.get("return", Any), streams=streams, is_async=inspect.iscoroutinefunction(core)),
            text=_described(parameters, f" -> {_annotation_text(raw['return'])}" if "return" in raw else ""),
        )


def _unwrapped(fn: Any) -> Any:
    """Return the function in which the code stands: what a partial, a method or an object with `__call__` calls."""
    while True:
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif inspect.ismethod(fn):
            fn = fn.__func__
        elif not inspect.isroutine(fn) and not isinstance(fn, type) and hasattr(type(fn), "__call__"):  # noqa: B004
            fn = type(fn).__call__
        else:
            return fn


def _name(fn: Any, core: Any) -> str:
    for named in (fn, core if isinstance(fn, functools.partial) else type(fn)):
        if isinstance(name := getattr(named, "__name__", None), str):
            return name
    return type(fn).__name__


def _hints(fn: Any, task: str) -> dict[str, Any]:
    """Return annotations by name, those written as text resolved."""
    try:
        return typing.get_type_hints(fn, include_extras=True) if getattr(fn, "__annotations__", None) else {}
    except Exception as error:
        reason = summary(error)
    for name, annotation in dict(getattr(fn, "__annotations__", {})).items():
        if (reason_here := _unresolved(fn, name, annotation)) is not None:
            where = "the return annotation" if name == "return" else f"the annotation of {name!r},"
            raise ConfigError(
                f"task {task!r}: {where} {safe_repr(annotation, 80)}, cannot be resolved ({reason_here}); "
                "define or import that name at the top of the module, above the task and not under TYPE_CHECKING"
            )
    raise ConfigError(f"task {task!r}: its annotations cannot be resolved ({reason})")


def _unresolved(fn: Any, name: str, annotation: Any) -> str | None:
    # A function of the same module with this one annotation tells whose fault it is.
    probe = FunctionType((lambda: None).__code__, getattr(inspect.unwrap(fn), "__globals__", {}))
    probe.__annotations__ = {name: annotation}
    try:
        typing.get_type_hints(probe, include_extras=True)
    except Exception as error:
        return summary(error)
    return None


def _is_context(annotation: Any, context_type: type) -> bool:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _is_context(get_args(annotation)[0], context_type)
    if origin in (Union, UnionType):
        return any(_is_context(one, context_type) for one in get_args(annotation))
    kind = origin or annotation
    return isinstance(kind, type) and issubclass(kind, context_type)


def _parameter(declared: inspect.Parameter, annotation: Any) -> Parameter:
    stars = 2 if declared.kind is Kind.VAR_KEYWORD else int(declared.kind is Kind.VAR_POSITIONAL)
    text = "*" * stars + declared.name
    typed = declared.annotation is not REQUIRED
    if typed:
        text += f": {_annotation_text(declared.annotation)}"
    if declared.default is not REQUIRED:
        shown = "***" if looks_secret(declared.name) else safe_repr(declared.default, 40)
        text += f" = {shown}" if typed else f"={shown}"
    return Parameter(declared.name, declared.kind, annotation, declared.default, text)


def _returned(annotation: Any, *, streams: bool, is_async: bool) -> Any:
    """Return the type of the results, or of the items of an async generator."""
    origin, args = get_origin(annotation), get_args(annotation)
    if streams:
        return args[0] if args else Any
    if not is_async and origin in (collections.abc.Awaitable, collections.abc.Coroutine, asyncio.Future):
        return args[-1]
    return NoneType if annotation in (NoReturn, Never) else _storable(annotation)


def _storable(annotation: Any) -> Any:
    if get_origin(annotation) is collections.abc.Iterable or annotation is collections.abc.Iterable:
        # pydantic would make an iterator of it, which can be read only once.
        return list[get_args(annotation) or Any]  # type: ignore[misc]
    return annotation


_MODULES: Final = re.compile(r"\b(?:\w+\.)+(?=\w)")


def _annotation_text(annotation: Any) -> str:
    if isinstance(annotation, str):
        return printable(annotation, one_line=True)
    if isinstance(annotation, type) and not get_args(annotation):
        return "None" if annotation is NoneType else annotation.__name__
    # Without modules, as it stands in most sources.
    return _MODULES.sub("", safe_repr(annotation, 200))


def _described(parameters: Sequence[Parameter], returns: str) -> str:
    parts: list[str] = []
    previous: Kind | None = None
    for parameter in parameters:
        if previous is Kind.POSITIONAL_ONLY and parameter.kind is not Kind.POSITIONAL_ONLY:
            parts.append("/")
        if parameter.kind is Kind.KEYWORD_ONLY and previous not in (Kind.VAR_POSITIONAL, Kind.KEYWORD_ONLY):
            parts.append("*")
        parts.append(parameter.text)
        previous = parameter.kind
    if previous is Kind.POSITIONAL_ONLY:
        parts.append("/")
    return f"({', '.join(parts)}){returns}"
