"""
What a bridge takes from the machine, beside its loop and its log's clock.

A simulation brings its own, so that the same schedule gives the same course.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import NamedTuple


class Surroundings(NamedTuple):
    """
    A stopwatch and chance.

    Attributes:
        stopwatch: Seconds of the processor's time, from any beginning; it ends a turn of the hub.
        uniform: Draws evenly between two numbers; it spreads retries and reconnects.
    """

    stopwatch: Callable[[], float] = time.perf_counter
    uniform: Callable[[float, float], float] = random.uniform


HERE = Surroundings()
"""Those of this machine."""
