"""
For users' own tests: a pytest plugin, and what its fixtures are made of.

One line in ``conftest.py`` brings the fixtures; none of them is used unless a
test asks for it::

    pytest_plugins = ["catenary.testing"]

- ``catenary_factory``: the bridge that is tested; redefine it to bring your own.
- ``catenary_bridge``: that bridge behind a real server on a free port; it runs agents too.
- ``catenary_users``: a function that returns ids of users that no other test has.
- ``catenary_chaos``: a proxy in front of the bridge that breaks connections.
- ``catenary_checker``: an ordering checker.
- ``catenary_threads``: a monitor of threads that watches the bridge.
"""

from catenary.testing.bridge import AgentRun, BridgeUnderTest
from catenary.testing.completeness import assert_complete
from catenary.testing.fixtures import (
    catenary_bridge,
    catenary_chaos,
    catenary_checker,
    catenary_factory,
    catenary_threads,
    catenary_users,
)
from catenary.testing.singletons import reset

__all__ = [
    "AgentRun",
    "BridgeUnderTest",
    "assert_complete",
    "catenary_bridge",
    "catenary_chaos",
    "catenary_checker",
    "catenary_factory",
    "catenary_threads",
    "catenary_users",
    "reset",
]
