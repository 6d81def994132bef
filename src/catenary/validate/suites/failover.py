"""Failover: a node dies, all nodes are replaced, the log's server is restarted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import httpx

from catenary.errors import ValidationFailed
from catenary.position import Position
from catenary.validate.audience import NOTE_TYPE, Audience
from catenary.validate.crowd import together
from catenary.validate.field import Field
from catenary.validate.processes import BridgeProcess
from catenary.validate.rows import Need, Pace, Suite
from catenary.validate.stores import LoadBalancer, NatsServer, RedisServer
from catenary.validate.suites.expectations import expect_grammar, until_ended

failover = Suite("failover", "No event is lost with a node, and every client finds another.")

NODES = (Need.PROCESS, Need.REDIS, Need.LOAD_BALANCER)
NATS_NODES = (Need.PROCESS, Need.NATS, Need.LOAD_BALANCER)
PATIENCE = 60.0


class Deployment:
    """Two nodes over one store, behind a load balancer, and who publishes through it."""

    def __init__(
        self,
        store: RedisServer | NatsServer,
        nodes: tuple[BridgeProcess, ...],
        balancer: LoadBalancer,
        audience: Audience,
    ) -> None:
        self.store = store
        self.nodes = nodes
        self.audience = audience
        self.users: list[str] = []
        self.published = 0
        self._url = f"ws://127.0.0.1:{balancer.port}/ws"
        self._is_publishing = True

    async def join(self, users: list[str]) -> None:
        """Connect a reader of each user through the load balancer."""
        self.users = users
        await self.audience.join(users, url=self._url)

    async def publish(self) -> None:
        """Publish for one user after the other until told to stop; each event once, by its key."""
        parts = urlsplit(self._url)
        key = self.nodes[0].api_key
        async with httpx.AsyncClient(
            base_url=f"http://{parts.netloc}",
            headers={"authorization": f"Bearer {key}"},
            timeout=5,
            trust_env=False,
        ) as http:
            while self._is_publishing:
                await together(self._one(http, user_id) for user_id in self.users)
                self.published += 1
                await asyncio.sleep(0.02)

    async def _one(self, http: httpx.AsyncClient, user_id: str) -> None:
        marker = f"{user_id} {self.published}"
        event = {"type": NOTE_TYPE, "data": {"marker": marker}}
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    response = await http.post(
                        f"/api/users/{user_id}/events",
                        json=event,
                        headers={"idempotency-key": marker.replace(" ", "-")},
                    )
                except httpx.TransportError:
                    response = None
                if response is not None and response.status_code == httpx.codes.CREATED:
                    place = Position.parse(response.json()["position"])
                    self.audience.acknowledged(user_id, place, marker)
                    return
                if response is not None and response.status_code < 500:
                    raise ValidationFailed(f"publishing was answered {response.status_code}")
                await asyncio.sleep(0.05)

    def stop_publishing(self) -> None:
        """Publish nothing more after the round that is under way."""
        self._is_publishing = False


@asynccontextmanager
async def deployed(
    field: Field, kind: type[RedisServer | NatsServer] = RedisServer
) -> AsyncIterator[Deployment]:
    """Start a store, two nodes and a load balancer, and end them with the block."""
    async with AsyncExitStack() as stack:
        store = kind()
        await stack.enter_async_context(store)
        nodes = BridgeProcess.nodes(2, log=store.url, heartbeat_interval=2, run_drain_timeout=0.5)
        await together(stack.enter_async_context(node) for node in nodes)
        balancer = await stack.enter_async_context(LoadBalancer([node.port for node in nodes]))
        audience = await stack.enter_async_context(field.audience(nodes[0]))
        yield Deployment(store, nodes, balancer, audience)


async def _under_load(
    field: Field,
    harm: Callable[[Deployment], object],
    *,
    kind: type[RedisServer | NatsServer] = RedisServer,
    losses_are_told: bool = False,
) -> str:
    """Publish through the load balancer while something is done to what stands behind it."""
    async with deployed(field, kind) as here:
        await here.join(field.some_users(field.pick(full=50, quick=10)))
        publishing = asyncio.create_task(here.publish())
        await asyncio.sleep(0.5)
        result = harm(here)
        assert asyncio.iscoroutine(result)
        await result
        await asyncio.sleep(0.5)
        here.stop_publishing()
        await publishing
        await here.audience.settle(timeout=PATIENCE)
        field.judge(here.audience, losses_are_told=losses_are_told)
        field.tracks(here.audience)
        expected = here.published * len(here.users)
        got = here.audience.events_received
        field.expect(got >= expected, f"{got} of {expected} events came")
        away = max(
            (seconds for reader in here.audience.readers for seconds in reader.absences),
            default=0.0,
        )
        field.figure("away", away, "s")
        return (
            f"{got} of {expected} events at {len(here.users)} users; away for {away:.2f} s at most"
        )


@failover.row(
    "a node is killed",
    asked="two nodes behind a load balancer, one killed under load: every client ends with every event",
    needs=NODES,
    timeout=90,
    pace=Pace.PATIENT,
)
async def a_node_is_killed(field: Field) -> str:
    return await _with_a_node_killed(field, RedisServer)


@failover.row(
    "a node over NATS is killed",
    asked="two nodes over NATS behind a load balancer, one killed under load: every client ends with every event",
    needs=NATS_NODES,
    timeout=90,
    pace=Pace.PATIENT,
)
async def a_node_over_nats_is_killed(field: Field) -> str:
    return await _with_a_node_killed(field, NatsServer)


async def _with_a_node_killed(field: Field, kind: type[RedisServer | NatsServer]) -> str:
    async def kill(here: Deployment) -> None:
        await here.nodes[0].kill()
        field.happened("one node is killed")

    return await _under_load(field, kill, kind=kind)


@failover.row(
    "rolling restart",
    asked="both nodes are restarted in order, one after the other, under load: every client ends with every event",
    needs=NODES,
    timeout=120,
    pace=Pace.PATIENT,
)
async def rolling_restart(field: Field) -> str:
    async def roll(here: Deployment) -> None:
        for number, node in enumerate(here.nodes):
            field.happened(f"node {number} is stopped")
            await node.stop()
            await node.start()
            field.happened(f"node {number} is ready")

    return await _under_load(field, roll)


@failover.row(
    "the log's server is restarted",
    asked="the log's server is killed and started again under load: what was acknowledged is there, or clients are told",
    needs=NODES,
    timeout=90,
    pace=Pace.PATIENT,
)
async def the_logs_server_is_restarted(field: Field) -> str:
    return await _with_the_store_restarted(field, RedisServer)


@failover.row(
    "the NATS server is restarted",
    asked="the NATS server is killed and started again under load: what was acknowledged is there, or clients are told",
    needs=NATS_NODES,
    timeout=90,
    pace=Pace.PATIENT,
)
async def the_nats_server_is_restarted(field: Field) -> str:
    return await _with_the_store_restarted(field, NatsServer)


async def _with_the_store_restarted(field: Field, kind: type[RedisServer | NatsServer]) -> str:
    async def restart(here: Deployment) -> None:
        await here.store.kill()
        field.happened("the store is killed")
        await asyncio.sleep(1.0)
        await here.store.start()
        field.happened("the store is there again")

    return await _under_load(field, restart, kind=kind, losses_are_told=True)


@failover.row(
    "the log's server is frozen",
    asked="the log's server is frozen for 2 s under load: every client ends with every event",
    needs=NODES,
    timeout=90,
    pace=Pace.PATIENT,
)
async def the_logs_server_is_frozen(field: Field) -> str:
    async def freeze(here: Deployment) -> None:
        here.store.freeze()
        field.happened("Redis is frozen")
        await asyncio.sleep(2.0)
        here.store.thaw()
        field.happened("Redis goes on")

    return await _under_load(field, freeze)


@failover.row(
    "a node's runs",
    asked="a node with 4 open runs is killed: the other node ends each of them once, with producer_lost",
    needs=NODES,
    timeout=90,
    pace=Pace.PATIENT,
)
async def a_nodes_runs(field: Field) -> str:
    async with deployed(field) as here:
        first, second = here.nodes
        (asking,) = await here.audience.join([field.user()], url=first.websocket_url)
        (watching,) = await here.audience.join([field.user()], url=second.websocket_url)
        wish = {"agent": "talkative", "arguments": [100_000, 0.01], "runs": 4}
        await asking.ask({"type": "validate.run", "id": "1", "data": wish})
        await watching.until_events(40)
        await first.kill()
        field.happened("the node is killed")
        await until_ended(watching, 4, timeout=45)
        runs = expect_grammar(field, watching)
        codes = {
            arrival.event.data.get("code")
            for arrival in watching.arrivals
            if arrival.event.type == "agent_error"
        }
        field.expect(len(runs) == 4, f"{len(runs)} of 4 runs")
        field.expect(codes == {"producer_lost"}, f"the ends say {codes}")
        field.blame(
            str(problem) for problem in here.audience.problems() if problem.reader == watching.name
        )
        return f"{len(runs)} runs ended with producer_lost by the other node"
