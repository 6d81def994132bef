from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catenary.errors import UsageError
from catenary.position import Position


@given(epoch=st.from_regex(r"[A-Za-z0-9]{1,16}", fullmatch=True), seq=st.integers(0, 10**15))
def test_a_position_survives_its_text(epoch: str, seq: int) -> None:
    """Parsing the text of a position gives the position back."""
    assert Position.parse(str(Position(epoch, seq))) == Position(epoch, seq)


@given(st.text(max_size=30))
def test_any_text_is_a_position_or_a_clear_error(text: str) -> None:
    """Parsing never raises anything but UsageError, and only exact texts are positions."""
    try:
        position = Position.parse(text)
    except UsageError as error:
        assert "looks like" in str(error)
    else:
        assert str(position) == text


@pytest.mark.parametrize(
    "text", ["", "k3", "k3:", ":5", "k3:05", "k3:-1", "k3:5 ", " k3:5", "k3:٥", "k-3:5", "k3:5:6"]
)
def test_what_only_looks_like_a_position_is_refused(text: str) -> None:
    """Near misses are refused: a position has one spelling."""
    with pytest.raises(UsageError):
        Position.parse(text)
