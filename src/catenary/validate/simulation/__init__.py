"""
Event loops and a network in virtual time, for tests that are the same each time.

A :class:`SimulatedLoop` never waits, so that a run's timeout of ten minutes
passes in a millisecond. Several loops of one :class:`Simulation` are processes
of one world; a :class:`Network` lets them connect, and its links be slow, stall
and break. Which callback is next can be chosen, so that a test can look for
the order in which something fails, and find it again.
"""

from catenary.validate.simulation.course import Simulation, Stuck
from catenary.validate.simulation.link import Link
from catenary.validate.simulation.loop import SimulatedLoop
from catenary.validate.simulation.network import Network

__all__ = ["Link", "Network", "SimulatedLoop", "Simulation", "Stuck"]
