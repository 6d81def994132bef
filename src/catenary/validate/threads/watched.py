"""Objects and functions that report how they are used."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any

Report = Callable[[str], None]
"""Told what is done, such as ``cart.append()``, on the thread that does it, before it does."""


def watched_function(function: Callable[..., Any], report: Report, name: str) -> Callable[..., Any]:
    """Return a function that reports each call under a name, then makes it."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaiting(*args: Any, **kwargs: Any) -> Any:
            report(f"{name}()")
            return await function(*args, **kwargs)

        return awaiting

    @functools.wraps(function)
    def calling(*args: Any, **kwargs: Any) -> Any:
        report(f"{name}()")
        return function(*args, **kwargs)

    return calling


class Watched:
    """
    Stands for an object and reports how it is used.

    ``looked`` is told when something of it is read, ``changed`` when one of its
    methods is called or something is set; attributes that are ``free`` are
    not reported. ``isinstance`` takes it for the object; code that was given
    the object itself is not seen.
    """

    __slots__ = (
        "_watched_changed",
        "_watched_free",
        "_watched_looked",
        "_watched_name",
        "_watched_object",
    )

    def __init__(
        self, watched: object, name: str, *, looked: Report, changed: Report, free: frozenset[str]
    ) -> None:
        values = (changed, free, looked, name, watched)
        for slot, value in zip(Watched.__slots__, values, strict=True):
            object.__setattr__(self, slot, value)

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return type(self._watched_object)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._watched_object, name)
        if name in self._watched_free:
            return value
        if inspect.isroutine(value):
            return watched_function(value, self._watched_changed, f"{self._watched_name}.{name}")
        self._watched_looked(f"{self._watched_name}.{name}")
        return value

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self._watched_free:
            self._watched_changed(f"{self._watched_name}.{name} =")
        setattr(self._watched_object, name, value)

    def __delattr__(self, name: str) -> None:
        self._watched_changed(f"del {self._watched_name}.{name}")
        delattr(self._watched_object, name)

    def __repr__(self) -> str:
        return repr(self._watched_object)

    def __hash__(self) -> int:
        return hash(self._watched_object)


def _looking(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Watched, *args: Any) -> Any:
        self._watched_looked(f"{self._watched_name}.{name}()")
        return act(self._watched_object, *args)

    return method


def _changing(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Watched, *args: Any, **kwargs: Any) -> Any:
        self._watched_changed(f"{self._watched_name}.{name}()")
        result = act(self._watched_object, *args, **kwargs)
        # `x += y` binds `x` to what this returns.
        return self if result is self._watched_object else result

    return method


_LOOKING: dict[str, Callable[..., Any]] = {
    "bool": bool, "len": len, "iter": iter, "contains": operator.contains,
    "getitem": operator.getitem, "reversed": reversed, "str": str, "format": format,
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
    "gt": operator.gt, "ge": operator.ge, "add": operator.add, "sub": operator.sub,
    "or": operator.or_, "and": operator.and_,
}  # fmt: skip
_CHANGING: dict[str, Callable[..., Any]] = {
    "setitem": operator.setitem, "delitem": operator.delitem, "iadd": operator.iadd,
    "isub": operator.isub, "ior": operator.ior, "iand": operator.iand, "ixor": operator.ixor,
    "next": next, "call": lambda watched, *args, **kwargs: watched(*args, **kwargs),
    "enter": lambda watched: watched.__enter__(),
    "exit": lambda watched, *error: watched.__exit__(*error),
}  # fmt: skip
for _method, _table in ((_looking, _LOOKING), (_changing, _CHANGING)):
    for _name, _act in _table.items():
        setattr(Watched, f"__{_name}__", _method(f"__{_name}__", _act))
