"""
The chaos proxy: a network that breaks, to test agents and clients against.

Put a :class:`ChaosProxy` between a client and a server, and say what the
network does: :class:`Faults` for each connection, an :class:`Action` for all of
them, a :class:`Script` of both over time. All chance comes from a seed.
"""

from catenary.validate.chaos.blocking import BlockingChaosProxy
from catenary.validate.chaos.faults import CALM, Faults
from catenary.validate.chaos.journal import Entry, Incident, Journal
from catenary.validate.chaos.levels import LEVELS
from catenary.validate.chaos.profiles import PROFILES, Profile
from catenary.validate.chaos.proxy import ChaosProxy
from catenary.validate.chaos.script import (
    OUTAGE,
    Action,
    Interruption,
    Script,
    Step,
    interruptions,
    random_cuts,
    rapid_cuts,
    together,
)

__all__ = [
    "CALM",
    "LEVELS",
    "OUTAGE",
    "PROFILES",
    "Action",
    "BlockingChaosProxy",
    "ChaosProxy",
    "Entry",
    "Faults",
    "Incident",
    "Interruption",
    "Journal",
    "Profile",
    "Script",
    "Step",
    "interruptions",
    "random_cuts",
    "rapid_cuts",
    "together",
]
