"""Start-up: a server that starts is asked at once by everybody, and answers each of them."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import closing

import httpx

from catenary.errors import LogUnavailable
from catenary.eventlog.memory import MemoryLog
from catenary.factory import WebSocketBridgeFactory
from catenary.validate.bridges import ServedBridge
from catenary.validate.crowd import together
from catenary.validate.field import Field
from catenary.validate.processes import BridgeProcess
from catenary.validate.rows import Need, Suite
from catenary.validate.suites.chat import answering, question

startup = Suite("startup", "Who comes while the server starts is served, or told to come again.")


PATIENCE = 40.0
"""How long a busy machine may take to start a server; over 10 s counts as slow."""


async def _storm(field: Field, count: int) -> str:
    """Let all connect within a second, while the server starts."""
    async with _starting(field) as bridge, field.audience(bridge) as audience:
        began = time.perf_counter()
        spawning = asyncio.create_task(bridge.spawn())
        readers = [audience.reader(user_id) for user_id in field.some_users(count)]

        async def come(number: int) -> float:
            await asyncio.sleep(number / count)
            await readers[number].start(timeout=PATIENCE)
            return time.perf_counter() - began

        served = await together(come(number) for number in range(count))
        await spawning
        codes = {code for reader in readers for code in reader.close_codes}
        statuses = {status for reader in readers for status in reader.statuses}
        field.expect(1011 not in codes, "a connection was closed with 1011")
        field.expect(not codes, f"connections were closed with {codes}")
        field.expect(statuses <= {0, 503}, f"refused with {statuses}")
        field.expect_speed(max(served) < 11, f"the last was served after {max(served):.1f} s")
        field.figure("last_served", max(served), "s")
        return (
            f"{len(served)} of {count} served, the last {max(served):.2f} s after the start; "
            f"refused meanwhile with {sorted(statuses) or 'nothing'}"
        )


class _starting:  # noqa: N801 - used as a function, as contextlib's are
    """A server that has not started, killed at the end."""

    def __init__(self, field: Field) -> None:
        self._bridge = BridgeProcess.on_a_free_port()
        self._field = field

    async def __aenter__(self) -> BridgeProcess:
        return self._bridge

    async def __aexit__(self, *error: object) -> None:
        await self._bridge.kill()
        self._bridge.close()


@startup.row(
    "storm of 10",
    asked="10 connections within 1 s while the server starts: 503 or served, never 1011, all within 10 s",
    needs=(Need.PROCESS,),
    timeout=60,
)
async def storm_of_10(field: Field) -> str:
    return await _storm(field, 10)


@startup.row(
    "storm of 200",
    asked="200 connections within 1 s while the server starts: 503 or served, never 1011, all within 10 s",
    needs=(Need.PROCESS,),
    timeout=60,
)
async def storm_of_200(field: Field) -> str:
    return await _storm(field, 200)


@startup.row(
    "storm on a running server",
    asked="200 users connect at once to a server that runs: all are served within 10 s",
)
async def storm_on_a_running_server(field: Field) -> str:
    async with field.audience() as audience:
        began = time.perf_counter()
        readers = await audience.join(field.some_users(200))
        seconds = time.perf_counter() - began
        codes = {code for reader in readers for code in reader.close_codes}
        field.expect(not codes, f"connections were closed with {codes}")
        field.expect_speed(seconds < 10, f"it took {seconds:.1f} s")
        return f"{len(readers)} of 200 served within {seconds:.2f} s"


class _LateLog(MemoryLog):
    """A log that cannot be reached at first, as a store that starts after its server."""

    is_reachable = False

    async def start(self) -> None:
        if not self.is_reachable:
            raise LogUnavailable("the store does not answer yet")


@startup.row(
    "log not reachable yet",
    asked="until the log can be reached: not ready, 503 with Retry-After; then ready, and served",
    needs=(Need.OWN_BRIDGE,),
)
async def log_not_reachable_yet(field: Field) -> str:
    log = _LateLog()
    bridge = ServedBridge(WebSocketBridgeFactory(log, run_drain_timeout=0.5))
    try:
        await asyncio.to_thread(bridge.start)
        async with bridge.http() as http, field.audience(bridge) as audience:
            early = await http.get("/readyz")
            reader = audience.reader(field.user())
            reader.begin()
            await reader.until(lambda: reader.statuses, what="answered")
            log.is_reachable = True
            await reader.until(lambda: reader.is_live, timeout=15, what="live")
            late = await http.get("/readyz")
        field.expect(early.status_code == 503, f"at first /readyz answered {early.status_code}")
        field.expect("retry-after" in early.headers, "the 503 has no Retry-After")
        field.expect(set(reader.statuses) == {503}, f"a reader was answered {reader.statuses}")
        field.expect(late.status_code == 200, f"at last /readyz answered {late.status_code}")
        return f"{early.status_code} at first, {late.status_code} once the log is there; then live"
    finally:
        await asyncio.to_thread(bridge.stop)


@startup.row(
    "messages right after the upgrade",
    asked="20 clients send a question with the last bytes of their upgrade: all are handled, once",
    needs=(Need.OWN_BRIDGE,),
)
async def messages_right_after_the_upgrade(field: Field) -> str:
    async with field.served() as bridge:
        handled = answering(bridge)
        users = field.some_users(20)
        answers = await together(
            asyncio.to_thread(_upgrade_and_ask, bridge, user_id) for user_id in users
        )
        field.expect(all(b'"ack"' in answer for answer in answers), "a question was not answered")
        field.expect(len(handled) == 20, f"{len(handled)} of 20 questions were handled")
        field.expect(set(handled.values()) == {1}, "a question was handled more than once")
        return f"{len(handled)} of 20 questions handled once"


def _upgrade_and_ask(bridge: ServedBridge, user_id: str) -> bytes:
    """Send the upgrade request and a message in one segment; return what comes until the ack."""
    import msgspec  # noqa: PLC0415
    from websockets.client import ClientProtocol  # noqa: PLC0415
    from websockets.protocol import OPEN  # noqa: PLC0415
    from websockets.uri import parse_uri  # noqa: PLC0415

    protocol = ClientProtocol(parse_uri(bridge.websocket_url))
    request = protocol.connect()
    request.headers["Authorization"] = f"Bearer {bridge.token(user_id)}"
    writer = ClientProtocol(parse_uri(bridge.websocket_url), state=OPEN)
    writer.send_text(msgspec.json.encode(question(1, f"{user_id} asks")))
    received = b""
    with closing(socket.create_connection(("127.0.0.1", bridge.port), timeout=10)) as sock:
        sock.sendall(request.serialize() + b"".join(writer.data_to_send()))
        while b'"ack"' not in received:
            data = sock.recv(65536)
            if not data:
                return received
            received += data
    return received


@startup.row(
    "probes",
    asked="3 × the probes of health and readiness: 200 each time, within 1 s",
)
async def probes(field: Field) -> str:
    statuses: list[int] = []
    slowest = 0.0
    async with httpx.AsyncClient(
        base_url=field.bridge.http_url, verify=field.bridge.ssl or True, trust_env=False
    ) as http:
        for _ in range(3):
            for path in ("/healthz", "/readyz"):
                began = time.perf_counter()
                statuses.append((await http.get(path)).status_code)
                slowest = max(slowest, time.perf_counter() - began)
    field.expect(set(statuses) == {200}, f"answered {statuses}")
    field.expect_speed(slowest < 1, f"the slowest took {slowest:.2f} s")
    return f"{len(statuses)} probes answered 200, the slowest after {slowest * 1000:.0f} ms"
