"""Arithmetic in questions: found, computed, refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catenary.demo.arithmetic import compute, find_expression


@pytest.mark.parametrize(
    ("question", "expression", "text"),
    [
        ("What is 30 connections × 64 KiB?", "30 * 64 KiB", "1,966,080 bytes = 1,920 KiB = 1.875 MiB"),
        ("what's 2 plus 3 times 4", "2 + 3 * 4", "14"),
        ("(1 + 2) * 3?", "(1 + 2) * 3", "9"),
        ("10,000 events x 200 bytes in all", "10000 * 200 bytes", "2,000,000 bytes = 1,953.125 KiB = 1.907 MiB"),
        ("How long is 3 × 8 h?", "3 * 8 h", "86,400 s = 24 h = 1 days"),
        ("8 MiB divided by 4 s", "8 MiB / 4 s", "2,097,152 bytes a second"),
        ("64KiB / 2KiB", "64 KiB / 2 KiB", "32"),
        ("2 to the power of 10 minus 24", "2 ** 10 - 24", "1,000"),
        ("1 / 3", "1 / 3", "0.333"),
        ("0.25 × 0.001", "0.25 * 0.001", "0.00025"),
    ],
)  # fmt: skip
def test_expression_is_found_and_computed(question: str, expression: str, text: str) -> None:
    assert find_expression(question) == expression
    assert compute(expression).text == text


@pytest.mark.parametrize(
    "question",
    [
        "What happens with kill -9?", "Which codes are 4000-4499?", "On 2026-01-02?", "How many 30?",
        "Is 3 more than 2?", "What is C++?", "What are 30 and 64?", "", "7 ×", "(((", "is it and/or?",
    ],
)  # fmt: skip
def test_question_without_an_expression_has_none(question: str) -> None:
    assert find_expression(question) is None


@pytest.mark.parametrize(
    "expression",
    [
        "1 / 0",
        "9 ** 9 ** 9",
        "10 ** 65",
        "99999999999 ** 2",
        "9.9 ** 64 ** 2",
        " * ".join(["10.5 ** 64"] * 5),
    ],
)
def test_what_has_no_value_is_an_arithmetic_error(expression: str) -> None:
    with pytest.raises(ArithmeticError):
        compute(expression)


@pytest.mark.parametrize(
    "expression",
    ["", "()", "2 parsecs", "__import__('os')", "a.b", "1 if 1 else 2", "[1]", "1, 2", "1 +", "1" * 201],
)  # fmt: skip
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        compute(expression)


@given(st.text(st.sampled_from("0123456789.,+-*/^×x() KiBsh"), max_size=60))
def test_any_text_is_computed_or_refused(text: str) -> None:
    expression = find_expression(text)
    for candidate in filter(None, (expression, text)):
        try:
            compute(candidate)
        except (ArithmeticError, ValueError):
            continue


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.sampled_from("+-*/"))
def test_values_are_those_of_python(left: int, right: int, sign: str) -> None:
    expected = {"+": left + right, "-": left - right, "*": left * right, "/": left / right}[sign]
    assert compute(f"{left} {sign} {right}").value == expected
