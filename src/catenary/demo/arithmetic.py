"""Arithmetic found in a question, with sizes and times, and computed."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from typing import Any

import msgspec
import simpleeval

_SIZES = {
    "b": 1, "byte": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
_TIMES = {
    "µs": 1e-6, "ms": 1e-3, "millisecond": 1e-3, "s": 1, "sec": 1, "second": 1, "min": 60,
    "minute": 60, "h": 3600, "hour": 3600, "day": 86400,
}  # fmt: skip
_SPOKEN = (
    (r"\bmultiplied by\b|\btimes\b|[×·]", "*"),
    (r"\bdivided by\b|÷", "/"),
    (r"\bplus\b", "+"),
    (r"\bminus\b|\s[-−–]\s", " - "),
    (r"\bto the power of\b|\^", "**"),
    (r"(?<=\w)\s+[xX]\s+(?=\d)|(?<=\d)[xX](?=\d)", "*"),
)
_TOKEN = re.compile(
    r"(?P<number>\d[\d,]*(?:\.\d+)?)(?P<glued>[a-zA-Zµ]*)|(?P<operator>\*\*|[*/+()]| - )"
    r"|(?P<word>[^\W\d_]+)|(?P<other>\S)"
)
_MAX_LENGTH = 200
_MAX_POWER = 64


class Computation(msgspec.Struct, frozen=True, kw_only=True):
    """An expression as it was computed, its value, and the value in words."""

    expression: str
    value: int | float
    text: str


def find_expression(question: str) -> str | None:
    """
    Return the first expression of a question, such as ``30 * 64 KiB``.

    Words between a number and the next sign are left out. None if there are
    not two numbers with a sign between them.
    """
    text = question[:1000]
    for spoken, sign in _SPOKEN:
        text = re.sub(spoken, sign, text)
    best = ""
    for parts in _runs(text):
        expression = " ".join(parts).replace("( ", "(").replace(" )", ")")
        if len(expression) > len(best) and _is_computable(expression):
            best = expression
    return best or None


def _runs(text: str) -> list[list[str]]:
    """Return the stretches of numbers, units and signs; a number ends one if none follows."""
    runs: list[list[str]] = [[]]
    for match in _TOKEN.finditer(text):
        last = runs[-1][-1] if runs[-1] else ""
        follows = not last or last in "**/+-("
        if match["number"]:
            if not follows:
                runs.append([])
            runs[-1] += [match["number"].replace(",", ""), *_unit(match["glued"])]
        elif match["operator"]:
            runs[-1].append(match["operator"].strip())
        elif match["word"] and not follows:
            runs[-1] += _unit(match["word"]) if last[-1].isdigit() else []
        elif runs[-1]:
            runs.append([])
    return runs


def _unit(word: str) -> list[str]:
    name = _unit_name(word)
    return [word if name in _SIZES else name] if name else []


def _unit_name(word: str) -> str:
    lower = word.lower()
    for name in (lower, lower.removesuffix("s")):
        if name in _SIZES or name in _TIMES:
            return name
    return ""


def _is_computable(expression: str) -> bool:
    is_long = len(expression) > _MAX_LENGTH
    if is_long or not re.search(r"\d[^\d]*[*/+-][^\d]*\d", expression):
        return False
    try:
        ast.parse(_scaled(expression, 1, 1), mode="eval")
    except SyntaxError:
        return False
    return True


def compute(expression: str) -> Computation:
    """
    Compute an expression of numbers, sizes (``64 KiB``), times (``24 h``) and signs.

    Raises:
        ArithmeticError: If it has no value: a division by zero, a power too high.
        ValueError: If it is not such an expression.
    """
    if len(expression) > _MAX_LENGTH:
        raise ValueError(f"an expression has at most {_MAX_LENGTH} characters")
    value = _evaluated(_scaled(expression, 1, 1))
    size = _power(value, _evaluated(_scaled(expression, 2, 1)))
    time = _power(value, _evaluated(_scaled(expression, 1, 2)))
    return Computation(expression=expression, value=value, text=_worded(value, size, time))


def _scaled(expression: str, sizes: int, times: int) -> str:
    """Return Python's spelling of an expression, with its units grown by these factors."""

    def python(match: re.Match[str]) -> str:
        name = _unit_name(match[2])
        if name in _SIZES:
            return f"({match[1]}*{_SIZES[name] * sizes})"
        if name in _TIMES:
            return f"({match[1]}*{_TIMES[name] * times})"
        raise ValueError(f"{match[2]!r} is no unit that I know")

    plain = expression.replace("×", "*").replace("^", "**")
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", plain)
    plain = re.sub(r"(\d+(?:\.\d+)?)\s*([^\W\d_]+)", python, plain)
    if not re.fullmatch(r"[\d.\s*/+()-]+", plain):
        raise ValueError(f"not an expression of numbers, units and signs: {expression!r}")
    return re.sub(r"(?<![\d.])0+(?=\d)", "", plain)


def _evaluated(plain: str) -> int | float:
    try:
        value = _evaluator.eval(plain)
    except (SyntaxError, simpleeval.InvalidExpression) as error:
        raise ValueError(f"not an expression: {error}") from error
    if not isinstance(value, (int, float)):
        raise ValueError("the expression has no number as its value")  # noqa: TRY004
    if not math.isfinite(value):
        raise OverflowError("the value is too large")
    return value


def _raised(base: Any, power: Any) -> Any:
    if abs(power) > _MAX_POWER or abs(base) > 10**9:
        raise OverflowError(f"powers go up to {_MAX_POWER}")
    return base**power


_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.Pow: _raised, ast.USub: operator.neg, ast.UAdd: operator.pos,
}  # fmt: skip
_evaluator = simpleeval.SimpleEval(operators=_OPERATORS, functions={}, names={})


def _power(value: float, grown: float) -> int | None:
    """Return the power of a unit in a value that grew with it twofold; None if there is none."""
    return {1: 0, 2: 1, 0.5: -1}.get(round(grown / value, 9)) if value else 0


def _worded(value: float, size: int | None, time: int | None) -> str:
    if (size, time) == (1, 0):
        return _in_units(value, "bytes", {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40})
    if (size, time) == (0, 1):
        return _in_units(value, "s", {"min": 60, "h": 3600, "days": 86400})
    if (size, time) == (1, -1):
        return f"{number(value)} bytes a second"
    return number(value)


def _in_units(value: float, base: str, units: dict[str, int]) -> str:
    fitting = [(name, value / size) for name, size in units.items() if abs(value) >= size]
    others = " = ".join(f"{number(amount)} {name}" for name, amount in fitting[-2:])
    return f"{number(value)} {base}" + (f" = {others}" if others else "")


def number(value: float) -> str:
    """Return a number as people read it: grouped, with three decimals at most."""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.3f}".rstrip("0") if abs(value) >= 0.001 else f"{value:.3g}"
    return f"{int(value):,}"
