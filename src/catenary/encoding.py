"""
What agents pass, as JSON.

Values are encoded at the call, so what their owner changes later changes
nothing. Encoding never fails: what has no JSON form becomes
``{"unencodable": "ClassName"}``, for the offending part only, and is logged
once per class.

msgspec does the work. A careful walk over the value is made only when msgspec
refuses, or when its output may break one of the rules below.

==============================  ===========================================
value                           JSON
==============================  ===========================================
NaN, infinities                 ``null``
integers beyond 64 bits         string
lone surrogates in strings      U+FFFD
``datetime``, ``date``, …       ISO 8601 string
``UUID``, ``Decimal``, paths    string
bytes, memory views             base64 string
sets, named tuples, sequences   array
enums                           their value
exceptions                      ``{"type", "message"}``
dataclasses, structs, models    object
NumPy-like scalars, arrays      what ``tolist()`` or ``item()`` returns
keys that are not strings       ``str(key)``; of equal keys the last counts
iterators                       never consumed: unencodable (but a model writes
                                its own fields as it writes JSON)
==============================  ===========================================
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import itertools
import logging
import math
import pathlib
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

_log = logging.getLogger("catenary.encoding")

MAX_DEPTH = 30
"""
How deep a value may nest.

The wire allows 32 levels. One is the event around the value, one is kept for
the marker that stands for what nests deeper.
"""

_MAX_PARTS = 50_000  # opened by one careful walk
_MAX_ITEMS = 200_000  # of a sequence or an array that is made into a list first
_MAX_WARNINGS = 256
_SCALARS = frozenset({str, int, float, bool, type(None)})
_LEAVES = frozenset(
    {dt.datetime, dt.date, dt.time, dt.timedelta} | {uuid.UUID, decimal.Decimal, bytes, bytearray}
)
_ARRAYS = (list, tuple, set, frozenset)
_EXACT: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, memoryview),
    (bytearray, memoryview),
    (dt.datetime, lambda moment: dt.datetime.fromisoformat(dt.datetime.isoformat(moment))),
    (dt.date, lambda day: dt.date.fromisoformat(dt.date.isoformat(day))),
    (dt.time, lambda time: dt.time.fromisoformat(dt.time.isoformat(time))),
    (dt.timedelta, lambda span: dt.timedelta(span.days, span.seconds, span.microseconds)),
    (decimal.Decimal, str),
    (uuid.UUID, str),
    (pathlib.PurePath, str),
)
_DIGITS = b"0123456789"
_LONG = 19  # digits: no shorter integer is beyond 64 bits
_RUN = b"0" * _LONG
_AS_ZEROS = bytes.maketrans(_DIGITS, b"0" * 10)
_NOT_BRACKETS_OR_QUOTES = bytes(set(range(256)) - set(b'[]{}"'))
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_LONG_NUMBER = re.compile(rb"-[0-9]{19}|[0-9]{20}")

# Descriptors of `type` itself: a metaclass can neither override nor break them.
_name_of: Callable[[type], str] = type.__dict__["__name__"].__get__

_warned: dict[tuple[int, str], object] = {}


def encode(value: Any) -> bytes:
    """
    Return ``value`` as JSON, in UTF-8; it never raises because of the value.

    It may be called from any thread, and again from within a value's own
    ``model_dump`` or ``__str__``. A ``msgspec.Raw`` is taken at its word: its
    caller answers for its being JSON. What a value holds twice is written
    twice.
    """
    try:
        encoded = _encode(value)
    except Exception:  # whatever a value's own code raises
        return _encode(_Walk().plain(value))
    if len(encoded) < _LONG or type(value) is str or _is_sound(encoded):
        return encoded
    return _encode(_Walk().plain(value))


def to_builtins(value: Any) -> Any:
    """
    Return what a reader of :func:`encode`'s output gets.

    It consists of ``dict``, ``list``, ``str``, ``int``, ``float``, ``bool``
    and ``None``, shares nothing with ``value``, and never raises because of it.
    """
    try:
        return msgspec.json.decode(encode(value))
    except msgspec.DecodeError:  # a Raw that is no JSON
        return _Walk().plain(value)


def _is_sound(encoded: bytes) -> bool:
    """
    Whether no number is too long and nothing nests too deep.

    Most output is cleared without telling strings from the rest: a long run of
    digits shows one at every nineteenth byte, and depth takes brackets.
    """
    if not _has_long_run(encoded) and (
        len(encoded) <= 2 * MAX_DEPTH
        or len(encoded.translate(None, _NOT_BRACKETS)) <= 2 * MAX_DEPTH
    ):
        return True
    unescaped = encoded.replace(rb"\\", b"").replace(rb"\"", b"")
    brackets = _without_strings(unescaped.translate(None, _NOT_BRACKETS_OR_QUOTES))
    return _is_shallow(brackets) and not (
        _has_long_run(encoded) and _LONG_NUMBER.search(_without_strings(unescaped))
    )


def _has_long_run(encoded: bytes) -> bool:
    sample = encoded[_LONG - 1 :: _LONG]
    return sample.translate(None, _DIGITS) != sample and _RUN in encoded.translate(_AS_ZEROS)


def _without_strings(unescaped: bytes) -> bytes:
    # Empty strings go first, for speed; what remains between quotes stays between quotes.
    return b"".join(unescaped.replace(b'""', b"").split(b'"')[::2])


def _is_shallow(brackets: bytes) -> bool:
    """Whether these pairs of brackets nest no deeper than they may, peeled from within."""
    for left in range(MAX_DEPTH, 0, -1):
        if len(brackets) <= 2 * left:
            return True
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return not brackets


class _NoForm(TypeError):
    """There is no JSON form; the text says why."""


def _reduce(value: Any) -> Any:
    """
    Return ``value`` one step nearer to what msgspec knows.

    What msgspec knows comes here too, when it is the key of a dict and may not
    be one.

    Raises:
        _NoForm: If there is no such step. Values may raise what they like.
    """
    kind = type(value)
    for base, exact in _EXACT:
        if isinstance(value, base) and kind is not base and kind is not bool:
            return exact(value)
    if isinstance(value, BaseException):
        return {"type": _name_of(kind), "message": str(value)}
    if hasattr(kind, "model_dump"):
        return _dumped(value)
    if hasattr(kind, "__fields__") and hasattr(kind, "dict"):  # pydantic 1
        return value.dict()
    if isinstance(value, (dict, *_ARRAYS)):
        raise _NoForm("as a key")
    return _reduce_collection(value)


def _reduce_collection(value: Any) -> Any:
    kind = type(value)
    if isinstance(value, Mapping):
        return dict(itertools.islice(value.items(), _checked_size(len(value))))
    if isinstance(value, (Sequence, AbstractSet, ValuesView)):
        return list(itertools.islice(value, _checked_size(len(value))))
    if hasattr(kind, "tolist"):
        _checked_size(getattr(value, "size", 1))
        return value.tolist()
    if hasattr(kind, "item"):
        return value.item()
    raise _NoForm("there is no rule for it")


def _dumped(model: Any) -> Any:
    try:
        return model.model_dump(mode="json")
    except Exception:  # a field that the model itself cannot write: the rest still counts
        return model.model_dump()


def _checked_size(size: Any) -> Any:
    if isinstance(size, int) and size > _MAX_ITEMS:
        raise _NoForm("too many items")
    return size


_encode = msgspec.json.Encoder(enc_hook=_reduce).encode


class _Walk:
    """
    The careful way from a value to plain builtins, part by part.

    A part that is too deep, contains itself or raises becomes a marker. The
    number of parts is bounded: in a knot of objects that all know each other
    the ways through it cannot be counted.
    """

    def __init__(self) -> None:
        self._above: set[int] = set()
        self._parts_left = _MAX_PARTS

    def plain(self, value: Any, depth: int = 1) -> Any:
        kind = type(value)
        try:
            if kind in _SCALARS:
                return _scalar(value)
            if kind in _LEAVES:
                return msgspec.to_builtins(value)
            return self._compound(value, depth)
        except Exception as reason:  # whatever a value's own code raises
            return _unencodable(kind, reason)

    def _compound(self, value: Any, depth: int) -> Any:
        self._parts_left -= 1
        if id(value) in self._above:
            raise _NoForm("it contains itself")
        if self._parts_left < 0:
            raise _NoForm("too many parts")
        self._above.add(id(value))
        try:
            return self._opened(value, depth)
        finally:
            self._above.discard(id(value))

    def _opened(self, value: Any, depth: int) -> Any:
        parts = _parts(value)
        if parts is None:
            return self.plain(_inner(value), depth)
        if depth > MAX_DEPTH and not _is_marker(value):
            raise _NoForm("it nests too deep")
        if isinstance(parts, dict):
            items = list(parts.items())
            return {_key(key): self.plain(part, depth + 1) for key, part in items}
        return [self.plain(part, depth + 1) for part in list(parts)]


def _scalar(value: Any) -> Any:
    if isinstance(value, str):
        # Through UTF-16 the two halves of a pair find each other.
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return value


def _inner(value: Any) -> Any:
    """Return what is written in the place of a value that has no parts."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, memoryview):
        return value.tobytes()
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    return _reduce(value)


def _parts(value: Any) -> Any:
    """Return the dict or the array that msgspec would write, or None."""
    kind = type(value)
    if isinstance(value, (dict, *_ARRAYS)):
        return value
    if isinstance(value, msgspec.Struct):
        return _struct_parts(value)
    if hasattr(kind, "__dataclass_fields__"):
        return _present(value, (field.name for field in dataclasses.fields(value)))
    if hasattr(kind, "__attrs_attrs__"):
        return _present(value, (field.name for field in kind.__attrs_attrs__))
    return None


def _present(value: Any, names: Iterable[str]) -> dict[Any, Any]:
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _struct_parts(value: msgspec.Struct) -> dict[Any, Any] | list[Any]:
    config = value.__struct_config__
    tag = [] if config.tag is None else [(config.tag_field, config.tag)]
    names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
    fields = [(shown, getattr(value, name)) for shown, name in names]
    if config.array_like:
        return [part for _, part in [*tag, *fields]]
    if config.omit_defaults:
        defaults = value.__struct_defaults__
        optional = len(fields) - len(defaults)
        fields[optional:] = [
            field
            for field, default in zip(fields[optional:], defaults, strict=True)
            if not _is_default(field[1], default)
        ]
    return dict([*tag, *(field for field in fields if field[1] is not msgspec.UNSET)])


def _is_default(part: Any, default: Any) -> bool:
    factory = getattr(default, "factory", None)
    return part is default or (type(part) is factory and factory in (list, dict, set) and not part)


def _is_marker(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and type(value.get("unencodable")) is str


def _key(key: Any) -> str:
    try:
        if isinstance(key, str):
            return str(_scalar(key))
        if isinstance(key, enum.Enum):
            return _key(key.value)
        if type(key) in (int, float, *_LEAVES):
            return str(next(iter(msgspec.to_builtins({key: None}, str_keys=True))))
        return str(_scalar(str(key)))
    except Exception as reason:  # whatever a key's own code raises
        return f"unencodable {_unencodable(type(key), reason)['unencodable']}"


def _unencodable(kind: type, reason: Exception) -> dict[str, str]:
    """Return the marker, and log its class if it is the first of it."""
    name = str(_scalar(_name_of(kind)))
    first = object()
    key = (id(kind), name)
    if len(_warned) < _MAX_WARNINGS and _warned.setdefault(key, first) is first:
        why = str(reason) if isinstance(reason, _NoForm) else _name_of(type(reason))
        _log.warning("%s cannot be encoded as JSON (%s); readers see a marker.", name, why)
    return {"unencodable": name}
