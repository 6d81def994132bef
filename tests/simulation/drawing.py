"""Schedules drawn by chance: the same for the same number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, cast

from tests.simulation import schedule as s

LONGEST = 40

_READERS = (0, 0, 0, 1, 1, 2, 3)
_USERS = (0, 0, 0, 1)
_PRODUCERS = (0, 0, 1, 2)
_LENGTHS = (0, 1, 2, 3)

_FIELDS: Mapping[type[s.Operation], Sequence[Sequence[Any]]] = {
    s.Emit: (_PRODUCERS, [*s.What, s.What.NOTE, s.What.DELTA], (1, 1, 2, 3, 5, 12, 30)),
    s.Advance: (_PRODUCERS, list(s.Step)),
    s.Agent: (_PRODUCERS, range(5)),
    s.Connect: (_READERS, [*s.After, s.After.LAST, s.After.LAST]),
    s.Leave: (_READERS,),
    s.Die: (_READERS,),
    s.Cut: (_READERS, [*s.Break, s.Break.CUT], range(4)),
    s.Stall: (_READERS,),
    s.Release: (_READERS,),
    s.Pause: (_READERS,),
    s.Freeze: (_READERS,),
    s.Wait: ((0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6, 7),),
    s.NewTerm: ((0, 0, 1, 2),),
    s.Forge: (_READERS, (0, 1, 1, 2, 5)),
    s.Erase: (_USERS, (0, 0, 1, 2)),
    s.DropTail: (_USERS,),
    s.Command: (_READERS, range(4)),
    s.CancelRun: (_READERS, _PRODUCERS),
    s.Restart: (list(s.Stop),),
    s.LogAway: (_LENGTHS,),
    s.FreezeServer: (_LENGTHS,),
    s.Kick: (_USERS,),
    s.Sweep: (),
}
"""What the fields of each operation are chosen from, those beside its pace and its order."""

_USUAL = (s.Emit, s.Emit, s.Connect, s.Wait)
_SPECIAL = tuple(kind for kind in _FIELDS if kind not in _USUAL)

_PACES = (0, 0, 0, 1, 2, 3, 4, 5, 6, 7)


def draw(number: int) -> s.Schedule:
    """
    Return the schedule of a number.

    Each has a few kinds of operations only, beside the usual ones: what needs
    many of one kind is found sooner so than if all came together.
    """
    random = Random(number)
    kinds: list[type[s.Operation]] = [*_USUAL, *random.sample(_SPECIAL, random.randrange(1, 6))]
    is_orderly = random.random() < 0.4
    operations = [
        _operation(random.choice(kinds), random, is_orderly=is_orderly)
        for _ in range(random.randrange(3, LONGEST))
    ]
    opening = s.Connect(random.choice(_READERS), pace=random.choice(_PACES))
    return s.Schedule(_setup(random), [opening, *operations])


def _operation(kind: type[s.Operation], random: Random, *, is_orderly: bool) -> s.AnyOperation:
    fields = [random.choice(choices) for choices in _FIELDS[kind]]
    stir = 0 if is_orderly or random.random() < 0.3 else random.randrange(1, 256)
    operation = kind(*fields, pace=random.choice(_PACES), stir=stir)
    return cast("s.AnyOperation", operation)


def _setup(random: Random) -> s.Setup:
    return s.Setup(
        log=s.LogKind(random.randrange(4) == 0),
        retain=random.choice((s.Retain.ALL, *s.Retain)),
        wire=random.choice((s.Wire.PLAIN, *s.Wire)),
        slow_log=random.choice((0, 0, 1, 2, 3)),
        slow_turn=random.choice((0, 0, 1, 2)),
        slow_machine=int(random.random() < 0.2),
        short_tokens=int(random.random() < 0.1),
        small_tails=int(random.random() < 0.1),
    )
