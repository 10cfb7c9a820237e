"""Frozen dataclasses as JSON fields and arrays, and back only if every value is what its annotation says.

Knows str, int, float, bool, enums of text, tuples, nested dataclasses and `X | None`; arrays go beside the fields.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from pacs_node.opening.framing import AnswerMalformed

TEXT_LENGTH = 2000
ITEMS = 4096
"""Longest text and longest tuple that are believed."""

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """`value` as JSON knows it, without its arrays."""
    if is_dataclass(value):
        held = {entry.name: getattr(value, entry.name) for entry in fields(value)}
        return {name: to_plain(part) for name, part in held.items() if not isinstance(part, np.ndarray)}
    if isinstance(value, tuple):
        return [to_plain(part) for part in value]
    if isinstance(value, str):
        # A header's own words may stand in it.
        return "".join(letter if letter.isprintable() else "?" for letter in value[:TEXT_LENGTH])
    if isinstance(value, np.generic):
        return value.item()
    return value


def from_plain(kind: type[T], plain: object, arrays: Mapping[str, NDArray[Any]] | None = None) -> T:
    """The dataclass that `to_plain` took apart, its arrays given by name.

    Raises
    ------
    AnswerMalformed
        A field is missing, too many, of another type, too long or not finite, or the class itself refuses the values.
    """
    hints, given = _hints(kind), dict(arrays or {})  # type: ignore[arg-type]
    if not isinstance(plain, dict) or set(plain) | set(given) != set(hints) or set(plain) & set(given):
        raise AnswerMalformed(f"other fields than those of {kind.__name__}")
    values = {name: _value(hints[name], part) for name, part in plain.items()}
    try:
        return kind(**values, **given)
    except (TypeError, ValueError) as error:
        raise AnswerMalformed(f"no {kind.__name__}: {type(error).__name__}") from None


@cache
def _hints(kind: Hashable) -> dict[str, Any]:
    # Some modules name these only for type checkers.
    return get_type_hints(kind, localns={"np": np, "NDArray": NDArray})


def _value(hint: Any, plain: object) -> Any:
    if get_origin(hint) is UnionType and NoneType in get_args(hint):
        (hint,) = set(get_args(hint)) - {NoneType}
        if plain is None:
            return None
    if get_origin(hint) is tuple:
        if not isinstance(plain, list) or len(plain) > ITEMS:
            raise AnswerMalformed("no list, or too long")
        parts = get_args(hint)
        each = [parts[0]] * len(plain) if parts[-1] is Ellipsis else parts
        if len(each) != len(plain):
            raise AnswerMalformed("a list of another length")
        return tuple(_value(part, item) for part, item in zip(each, plain, strict=True))
    if not isinstance(hint, type):
        raise TypeError(f"{hint} is not a kind of value that comes out of a child")
    if is_dataclass(hint):
        return from_plain(hint, plain)
    return _scalar(hint, plain)


def _scalar(hint: type, plain: object) -> Any:
    if issubclass(hint, StrEnum):
        if not isinstance(plain, str) or plain not in set(hint):
            raise AnswerMalformed(f"no {hint.__name__}")
        return hint(plain)
    if hint is str:
        if not isinstance(plain, str) or len(plain) > TEXT_LENGTH or not plain.isprintable():
            raise AnswerMalformed("no printable text, or too long")
        return plain
    if hint is bool:
        if not isinstance(plain, bool):
            raise AnswerMalformed("neither true nor false")
        return plain
    if hint in (int, float):
        if isinstance(plain, bool) or not isinstance(plain, int if hint is int else int | float):
            raise AnswerMalformed("no number")
        if abs(plain) > 2**53 or not math.isfinite(plain):
            raise AnswerMalformed("a number out of range")
        return hint(plain)
    raise TypeError(f"{hint} is not a kind of value that comes out of a child")
