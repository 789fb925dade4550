"""What an annotation promises of its values' way through JSON.

Read once, from the core schema that pydantic makes of an annotation: most annotations keep what they promise, and their
values need no check. The checks themselves are in `oncue.fidelity`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Flag
from typing import Any, Final, TypeAlias

__all__ = ["CoreSchema", "Traits"]

CoreSchema: TypeAlias = Mapping[str, Any]

_EXACT: Final = frozenset({"none", "bool", "int", "str", "float", "bytes", "uuid", "date", "literal", "enum"})
_CONTAINERS: Final = frozenset({"nullable", "default", "list", "set", "frozenset", "tuple", "dict", "typed-dict"})
_WRAPPERS: Final = frozenset({"typed-dict-field", "definition-ref", "definitions"})
_NATIVE: Final = frozenset({"any", "none", "bool", "int", "str", "float", "nullable", "default", "list", "dict"})
_UNTYPED_ITEMS: Final = {"list": "items_schema", "set": "items_schema", "frozenset": "items_schema"}
_EXACT_KEYS: Final = frozenset({"str", "int", "uuid"})
# Parts of a core schema that hold no schemas, but values of the user's.
_OPAQUE: Final = frozenset({"config", "default", "expected", "members", "metadata", "values"})
# Parts whose keys are names that the user chose.
_NAMED: Final = frozenset({"fields", "choices"})


@dataclass(slots=True)
class Traits:
    """What an annotation promises of its values' way through JSON.

    Attributes:
        exact: every value that is valid comes back equal and of the same type: nothing needs to be checked.
        untyped: `Any` is somewhere in it.
        native: it is made of `Any` and JSON's own types alone, so that values need no more than to be JSON's own.
        choice: it is a union somewhere, of which JSON may not tell the members apart.
        nested: its values may be nested without a bound, through `Any` or through itself.
        numbers: it has integers, which may have more digits than can be read back.
        floats: it may have floats, and so NaN.
        model_floats: it has floats inside a model, whose own configuration may write NaN as null.
        lazy: it has iterators, which can be read only once.
    """

    exact: bool = True
    untyped: bool = False
    native: bool = True
    choice: bool = False
    nested: bool = False
    numbers: bool = False
    floats: bool = False
    model_floats: bool = False
    lazy: bool = False

    @classmethod
    def of(cls, schema: CoreSchema, definitions: Mapping[str, CoreSchema]) -> Traits:
        """Read them from a pydantic core schema; `definitions` are what its references name."""
        traits = cls()
        _Walk(traits, definitions).visit(schema, inside_model=False)
        if traits.untyped:
            traits.nested = traits.numbers = traits.floats = True
        traits.native = traits.native and traits.untyped
        return traits

    def take(self, kind: str, node: CoreSchema, *, inside_model: bool) -> None:
        """Take one node of the schema into account."""
        if kind == "any" or _has_untyped_items(kind, node):
            self.untyped = True
        if kind not in _WRAPPERS:
            self.native = self.native and kind in _NATIVE and _has_plain_keys(node)
        self.choice = self.choice or kind in {"union", "tagged-union"}
        self.numbers = self.numbers or kind == "int"
        self.floats = self.floats or kind == "float" or kind not in _EXACT | _CONTAINERS | _WRAPPERS
        self.model_floats = self.model_floats or (inside_model and kind in {"float", "any"})
        self.lazy = self.lazy or kind == "generator"
        self.exact = self.exact and _is_exact(kind, node)


class _Walk:
    """Goes through a core schema, and each of its definitions once."""

    def __init__(self, traits: Traits, definitions: Mapping[str, CoreSchema]) -> None:
        self._traits = traits
        self._definitions = definitions
        self._under_way: set[str] = set()
        self._done: set[tuple[str, bool]] = set()

    def visit(self, node: Any, *, inside_model: bool) -> None:
        if isinstance(node, (list, tuple)):
            for item in node:
                self.visit(item, inside_model=inside_model)
        elif isinstance(node, Mapping):
            self._visit_schema(node, inside_model)

    def _visit_schema(self, node: CoreSchema, inside_model: bool) -> None:
        kind = node.get("type")
        if isinstance(kind, str):
            self._traits.take(kind, node, inside_model=inside_model)
            inside_model = inside_model or kind in {"model", "dataclass"}
        if kind == "definition-ref":
            self._visit_definition(node["schema_ref"], inside_model)
            return
        for key, child in node.items():
            if key in _NAMED and isinstance(child, Mapping):
                self.visit(list(child.values()), inside_model=inside_model)
            elif key not in _OPAQUE:
                self.visit(child, inside_model=inside_model)

    def _visit_definition(self, name: str, inside_model: bool) -> None:
        if name in self._under_way:
            self._traits.nested = True
        elif (name, inside_model) not in self._done and name in self._definitions:
            self._done.add((name, inside_model))
            self._under_way.add(name)
            self.visit(self._definitions[name], inside_model=inside_model)
            self._under_way.remove(name)


def _has_untyped_items(kind: str, node: CoreSchema) -> bool:
    if kind == "dict":
        return "keys_schema" not in node or "values_schema" not in node
    return kind in _UNTYPED_ITEMS and _UNTYPED_ITEMS[kind] not in node


def _has_plain_keys(node: CoreSchema) -> bool:
    return node["type"] != "dict" or node.get("keys_schema", {"type": "any"})["type"] in {"str", "any"}


def _is_exact(kind: str, node: CoreSchema) -> bool:
    if kind in _WRAPPERS:
        return not node.get("serialization_exclude")
    if "serialization" in node or kind not in _EXACT | _CONTAINERS or _has_untyped_items(kind, node):
        return False
    if kind == "float":
        return not node.get("allow_inf_nan")
    if kind == "literal":
        return all(type(value) is str for value in node["expected"])
    if kind == "enum":
        if issubclass(node["cls"], Flag):
            return False  # its values are combinations, too
        values = {type(member.value) for member in node["members"]}
        return values <= {str} or values <= {int}
    if kind == "dict":
        return node["keys_schema"]["type"] in _EXACT_KEYS
    if kind == "typed-dict":
        return node.get("extra_behavior", "ignore") != "allow" and "extras_schema" not in node and _is_ours(node)
    return True


def _is_ours(node: CoreSchema) -> bool:
    """Whether a TypedDict has no configuration of its own, which pydantic would follow in one direction only."""
    config = node.get("config") or {}
    return config.get("val_json_bytes") == config.get("ser_json_bytes") == "base64"
