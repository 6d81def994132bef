"""What a run took, in the same words for every framework."""

from __future__ import annotations

import operator
from collections.abc import Callable

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Requests to models, and tokens; the last two are parts of those before them."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return self._with(operator.add, other)

    def __sub__(self, other: Usage) -> Usage:
        return self._with(operator.sub, other)

    def _with(self, operation: Callable[[int, int], int], other: Usage) -> Usage:
        fields = self.__struct_fields__
        return Usage(
            **{name: operation(getattr(self, name), getattr(other, name)) for name in fields}
        )
