"""The suites of the campaigns, in the order in which they are asked."""

from __future__ import annotations

from catenary.validate.rows import Suite
from catenary.validate.suites import adversaries, foreign_threads  # noqa: F401 - they add their rows to isolation
from catenary.validate.suites.chaos import chaos
from catenary.validate.suites.chat import chat
from catenary.validate.suites.concurrency import concurrency
from catenary.validate.suites.constructor import constructor
from catenary.validate.suites.failover import failover
from catenary.validate.suites.heartbeat import heartbeat
from catenary.validate.suites.isolation import isolation
from catenary.validate.suites.lifecycle import lifecycle
from catenary.validate.suites.mobile import mobile
from catenary.validate.suites.multi_agent import multi_agent
from catenary.validate.suites.ordering import ordering
from catenary.validate.suites.performance import performance
from catenary.validate.suites.reliability import reliability
from catenary.validate.suites.startup import startup
from catenary.validate.suites.thread_safety import thread_safety

SUITES: tuple[Suite, ...] = (
    isolation,
    concurrency,
    thread_safety,
    ordering,
    chaos,
    performance,
    chat,
    reliability,
    multi_agent,
    startup,
    heartbeat,
    lifecycle,
    constructor,
    failover,
    mobile,
)
