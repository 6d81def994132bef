"""Failover: a node dies, all nodes are replaced, the log's server is restarted."""

from __future__ import annotations

from catenary.validate.field import Field
from catenary.validate.rows import Need, Suite
from catenary.validate.suites.lifecycle import MANY_NODES

failover = Suite("failover", "No event is lost with a node, and every client finds another.")


@failover.row(
    "a node is killed",
    asked="two nodes behind a load balancer, one killed: every client ends with every event",
    needs=(Need.PROCESS, Need.REDIS),
    waits_for=MANY_NODES,
)
async def a_node_is_killed(_: Field) -> str:
    return "not asked"


@failover.row(
    "rolling restart",
    asked="both nodes are restarted, one after the other, under load: every client ends with every event",
    needs=(Need.PROCESS, Need.REDIS),
    waits_for=MANY_NODES,
)
async def rolling_restart(_: Field) -> str:
    return "not asked"


@failover.row(
    "the log's server is restarted",
    asked="the log's server is restarted under load: what was acknowledged is there, or clients are told",
    needs=(Need.PROCESS, Need.REDIS),
    waits_for=MANY_NODES,
)
async def the_logs_server_is_restarted(_: Field) -> str:
    return "not asked"
