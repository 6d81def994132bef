"""The chaos proxy between real sockets and a real server."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import uvloop

from catenary.errors import UsageError
from catenary.validate.chaos import (
    CALM,
    Action,
    ChaosProxy,
    Faults,
    Incident,
    Script,
    Step,
)
from catenary.validate.chaos.relay import NO_LINGER
from tests.e2e.support import reset
from tests.serving.sockets import open_files
from tests.validate.echo import Echo, Peer, echoing, until

SEED = 7
CUTS = Incident.CUT, Incident.RESET


@pytest_asyncio.fixture
async def echo() -> AsyncIterator[Echo]:
    async with echoing() as echo:
        yield echo


@pytest_asyncio.fixture
async def network(echo: Echo) -> AsyncIterator[ChaosProxy]:
    """A calm network before the echo."""
    async with ChaosProxy(echo.port, seed=SEED) as network:
        yield network


async def test_a_calm_network_passes_everything_on(echo: Echo, network: ChaosProxy) -> None:
    """Every byte in order, and then the end of each direction by itself."""
    data = random.Random(SEED).randbytes(3_000_000)
    peer = await Peer.connect(network.port)
    sending = asyncio.create_task(send_all(peer, data))
    assert await peer.end() == (data, "end")
    await sending
    assert echo.ends == ["end"]
    peer.close()
    await until(lambda: network.connection_count == 0)
    assert [entry.what for entry in network.journal.entries] == ["opened", "ended"]


async def send_all(peer: Peer, data: bytes) -> None:
    for start in range(0, len(data), 100_000):
        peer.send(data[start : start + 100_000])
        await peer.writer.drain()
    peer.writer.write_eof()


async def test_one_direction_may_end_and_the_other_go_on() -> None:
    server = await asyncio.start_server(answer_after_the_end, "127.0.0.1", 0)
    async with server, ChaosProxy(server.sockets[0].getsockname()[1]) as network:
        peer = await Peer.connect(network.port)
        peer.send(b"question")
        peer.writer.write_eof()
        assert await peer.end() == (b"answer to question", "end")
        peer.close()


async def answer_after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"answer to " + await reader.read(-1))
    writer.close()


async def test_delay_comes_in_each_direction(network: ChaosProxy) -> None:
    peer = await Peer.connect(network.port)
    network.apply(Faults(delay=0.05, jitter=0.05))
    waits = []
    for _ in range(8):
        began = time.perf_counter()
        await peer.asked(b"x")
        waits.append(time.perf_counter() - began)
    assert min(waits) >= 0.1
    assert max(waits) < 0.5
    peer.close()


async def test_a_throttle_holds_its_rate(network: ChaosProxy) -> None:
    """50 kB at 200 kB/s take a quarter of a second each way, and overlap."""
    network.apply(Faults(bytes_per_second=200_000))
    peer = await Peer.connect(network.port)
    began = time.perf_counter()
    assert await peer.asked(b"x" * 50_000) == b"x" * 50_000
    assert 0.25 <= time.perf_counter() - began < 1.0
    peer.close()


async def test_pieces_arrive_one_by_one(network: ChaosProxy) -> None:
    """A reader gets what was written at once in many small reads, and nothing is lost."""
    network.apply(Faults(split_bytes=10))
    peer = await Peer.connect(network.port)
    data = random.Random(SEED).randbytes(2000)
    peer.send(data)
    reads = [await peer.reader.read(65536)]
    while sum(map(len, reads)) < len(data):
        reads.append(await peer.reader.read(65536))
    assert b"".join(reads) == data
    assert len(reads) > 50
    peer.close()


async def test_bytes_are_altered(network: ChaosProxy) -> None:
    network.apply(Faults(corrupt=1.0))
    peer = await Peer.connect(network.port)
    answer = await peer.asked(b"x" * 1000)
    assert 1 <= 1000 - answer.count(b"x") <= 2, "one byte each way"
    assert network.journal.count(Incident.CORRUPTED) >= 2
    peer.close()


@pytest.mark.parametrize(
    ("action", "ending"), [(Action.CUT, "end"), (Action.RESET, "reset")], ids=["end", "reset"]
)
async def test_all_connections_are_cut(
    action: Action, ending: str, echo: Echo, network: ChaosProxy
) -> None:
    """Both peers are told in the way that was asked for, also while bytes are under way."""
    peers = [await Peer.connect(network.port) for _ in range(3)]
    for peer in peers:
        assert await peer.asked(b"hello") == b"hello"
    network.apply(Faults(delay=0.2))
    for peer in peers:
        peer.send(b"x" * 100_000)
    await until(lambda: network.connection_count == 3)
    network.apply(action)
    for peer in peers:
        peer.send(b"unheard")
        assert await peer.end() == (b"", ending)
        peer.close()
    await until(lambda: echo.ends == [ending] * 3)
    await until(lambda: network.connection_count == 0)
    assert network.journal.count(Incident.CUT if ending == "end" else Incident.RESET) == 3


async def test_a_peer_that_does_not_close_after_an_end_is_dropped(network: ChaosProxy) -> None:
    """Its socket is kept for a second, not for ever."""
    peer = await Peer.connect(network.port)
    await peer.asked(b"hello")
    network.apply(Action.CUT)
    assert await peer.end() == (b"", "end")
    assert network.connection_count == 1
    await until(lambda: network.connection_count == 0)
    peer.close()


async def test_each_connection_meets_its_fate_whatever_the_others_do(echo: Echo) -> None:
    """
    Two networks with one seed cut the same connections after the same bytes.

    One carries its connections one after the other, the other all at once.
    """
    faults = Faults(cut=0.5, cut_within_bytes=3000)

    async def life(network: ChaosProxy) -> tuple[int, str]:
        """How much comes back, and how it ends; one write and one read at a time."""
        peer = await Peer.connect(network.port)
        return await lived(peer)

    async def lived(peer: Peer) -> tuple[int, str]:
        came = 0
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            for _ in range(40):
                came += len(await peer.asked(b"x" * 50))
            peer.writer.write_eof()
        rest, ending = await peer.end()
        peer.close()
        return came + len(rest), ending

    async with ChaosProxy(echo.port, faults=faults, seed=SEED) as network:
        single = [await life(network) for _ in range(30)]
        cuts = network.journal.count(*CUTS)
    async with ChaosProxy(echo.port, faults=faults, seed=SEED) as network:
        # Connected in order, so that each has its number.
        peers = [await Peer.connect(network.port) for _ in range(30)]
        crowd = await asyncio.gather(*(lived(peer) for peer in peers))
        assert network.journal.count(*CUTS) == cuts
    assert [came for came, _ in single] == [came for came, _ in crowd]
    assert 8 <= cuts <= 22
    assert len({came for came, _ in single}) > 8
    async with ChaosProxy(echo.port, faults=faults, seed=SEED + 1) as network:
        assert [await life(network) for _ in range(30)] != single


async def test_a_connection_is_refused_by_chance(echo: Echo) -> None:
    async with ChaosProxy(echo.port, faults=Faults(refuse=0.5), seed=SEED) as network:
        ends = []
        for _ in range(20):
            peer = await Peer.connect(network.port)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await peer.asked(b"x")
                ends.append("served")
            peer.close()
        assert 5 <= len(ends) <= 15
        assert network.journal.count(Incident.REFUSED) == 20 - len(ends)
    assert len(echo.addresses) == len(ends), "the server never saw the others"


async def test_everything_stands_still_and_goes_on(echo: Echo, network: ChaosProxy) -> None:
    """Also what is connected meanwhile, of which the server hears when it goes on."""
    peer = await Peer.connect(network.port)
    await peer.asked(b"before")
    network.apply(Action.STALL)
    peer.send(b"meanwhile")
    late = await Peer.connect(network.port)
    late.send(b"late")
    assert await peer.is_silent()
    assert await late.is_silent()
    assert len(echo.addresses) == 1
    network.apply(Action.GO_ON)
    assert await peer.receive(9) == b"meanwhile"
    assert await late.receive(4) == b"late"
    for each in (peer, late):
        each.close()


async def test_half_open_connections_are_dead_without_a_word(
    echo: Echo, network: ChaosProxy
) -> None:
    """Neither peer hears of the other, nor of its end; a new connection is served."""
    peer = await Peer.connect(network.port)
    await peer.asked(b"before")
    network.apply(Action.HALF_OPEN)
    peer.send(b"anyone there?")
    assert await peer.is_silent()
    fresh = await Peer.connect(network.port)
    assert await fresh.asked(b"hello") == b"hello"
    fresh.close()
    await until(lambda: echo.ends == ["end"])
    peer.close()
    assert echo.open == 1
    assert network.connection_count == 1
    network.apply(Action.RESET)
    assert network.connection_count == 1, "what is dead cannot be told"


async def test_connections_go_half_open_by_chance(echo: Echo) -> None:
    faults = Faults(half_open=1.0, cut_within_bytes=1000)
    async with ChaosProxy(echo.port, faults=faults, seed=SEED) as network:
        peer = await Peer.connect(network.port)
        peer.send(b"x" * 2000)
        await until(lambda: network.journal.count(Incident.HALF_OPEN) == 1)
        assert await peer.falls_silent()
        peer.close()


async def test_new_connections_are_refused_until_they_are_accepted(
    echo: Echo, network: ChaosProxy
) -> None:
    peer = await Peer.connect(network.port)
    await peer.asked(b"before")
    network.apply(Action.REFUSE)
    refused = await Peer.connect(network.port)
    assert await refused.end() == (b"", "reset")
    refused.close()
    assert await peer.asked(b"still") == b"still"
    network.apply(Action.ACCEPT)
    fresh = await Peer.connect(network.port)
    assert await fresh.asked(b"again") == b"again"
    assert len(echo.addresses) == 2
    for each in (peer, fresh):
        each.close()


async def test_a_change_of_address(echo: Echo, network: ChaosProxy) -> None:
    """What was open is dead without a word, and the server sees who comes from elsewhere."""
    peers: list[Peer] = []
    for address in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
        if peers:
            network.apply(Action.CHANGE_ADDRESS)
        peers.append(await Peer.connect(network.port))
        assert await peers[-1].asked(b"hello") == b"hello"
        assert echo.addresses[-1] == address
    for peer in peers[:2]:
        peer.send(b"anyone there?")
        assert await peer.is_silent()
    assert echo.ends == []
    for peer in peers:
        peer.close()


async def test_a_connection_on_which_nothing_happens_is_cut(echo: Echo) -> None:
    """As load balancers do; one that says something now and then is kept."""
    async with ChaosProxy(echo.port, faults=Faults(idle_timeout=0.3), seed=SEED) as network:
        idle, lively = await Peer.connect(network.port), await Peer.connect(network.port)
        began = time.perf_counter()
        ending = asyncio.create_task(idle.end())
        while not ending.done():
            await lively.asked(b"ping")
            await asyncio.sleep(0.02)
        assert 0.25 < time.perf_counter() - began < 1.5
        assert await lively.asked(b"still there") == b"still there"
        for each in (idle, lively):
            each.close()


async def test_a_server_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    """Its clients are reset, and the journal and the log say why."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with ChaosProxy(taken.getsockname()[1]) as network:
            peer = await Peer.connect(network.port)
            assert await peer.end() == (b"", "reset")
            peer.close()
            (_, entry) = network.journal.entries
            assert (entry.connection, entry.what) == (1, Incident.UNREACHABLE)
            assert "Connect call failed" in entry.detail
        assert "connection 1 does not reach the server: [Errno" in caplog.text


async def test_a_server_that_does_not_answer() -> None:
    """A client that gives up is let go, and closing does not wait for the server."""
    with contextlib.ExitStack() as sockets:
        deaf = sockets.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):
            # They fill the queue of those that wait to be accepted.
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        async with asyncio.timeout(5), ChaosProxy(deaf.getsockname()[1]) as network:
            peers = [await Peer.connect(network.port) for _ in range(2)]
            assert await peers[0].is_silent()
            peers[0].writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER
            )
            peers[0].writer.transport.abort()
            await until(lambda: network.connection_count == 1)
            assert await peers[1].is_silent()
        for peer in peers:
            peer.close()


async def test_what_is_under_way_is_bounded(echo: Echo) -> None:
    """A sender is stopped, as by TCP, however long the way is; what it sent arrives."""
    async with ChaosProxy(echo.port, buffer_bytes=100_000) as network:
        network.apply(Action.STALL)
        sock = socket.create_connection(("127.0.0.1", network.port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        sock.setblocking(False)
        sent = await push(sock)
        assert 100_000 < sent < 1_500_000
        network.apply(Action.GO_ON)
        await until(lambda: len(echo.received) == sent)
        sock.close()


async def test_a_peer_that_does_not_read_stops_the_other(echo: Echo) -> None:
    """So that neither the proxy nor the server keeps what it does not take."""
    async with ChaosProxy(echo.port) as network:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", network.port))
        sent = await push(sock)
        assert sent < 20_000_000
        assert len(echo.received) < sent
        sock.close()
        await until(lambda: network.connection_count == 0)


async def push(sock: socket.socket, quiet: float = 0.3) -> int:
    """Send until nothing more is taken for a while; return how much was."""
    sent, last = 0, time.monotonic()
    while time.monotonic() - last < quiet:
        try:
            sent += sock.send(b"x" * 65536)
            last = time.monotonic()
        except BlockingIOError:
            pass
        await asyncio.sleep(0.001)
    return sent


async def test_peers_that_vanish_leave_nothing_behind(echo: Echo) -> None:
    """In the handshake, in the middle, unread or unheard: neither socket nor connection is left."""
    rng = random.Random(SEED)
    async with ChaosProxy(echo.port, faults=Faults(jitter=0.01), seed=SEED) as network:
        files = open_files()
        for _ in range(200):
            sock = socket.socket()
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", network.port))
            if rng.random() < 0.7:
                sock.send(b"x" * rng.randrange(1, 50_000))
            await asyncio.sleep(rng.choice([0, 0, 0.001, 0.015]))
            (reset if rng.random() < 0.5 else socket.socket.close)(sock)
        await until(lambda: network.connection_count == 0)
        await until(lambda: not echo.open)
        assert open_files() == files
        peer = await Peer.connect(network.port)
        assert await peer.asked(b"still there") == b"still there"
        peer.close()


async def test_a_server_that_vanishes_is_told() -> None:
    async def vanish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        writer.transport.abort()

    server = await asyncio.start_server(vanish, "127.0.0.1", 0)
    async with server, ChaosProxy(server.sockets[0].getsockname()[1]) as network:
        peer = await Peer.connect(network.port)
        peer.send(b"hello")
        assert await peer.end() == (b"", "reset")
        assert network.journal.count(Incident.VANISHED) == 1
        peer.close()


async def test_closing_leaves_nothing_behind(echo: Echo) -> None:
    """Whatever its connections are at: open, full, silent, still, new or half closed."""
    await asyncio.sleep(0)
    tasks, files = asyncio.all_tasks(), open_files()
    for action in (None, *Action):
        async with ChaosProxy(echo.port, faults=Faults(delay=0.1), seed=SEED) as network:
            peers = [await Peer.connect(network.port) for _ in range(5)]
            peers[0].send(b"x" * 1_000_000)
            peers[1].writer.write_eof()
            peers[2].close()
            await until(lambda: len(network.journal.entries) >= 5)
            if action is not None:
                network.apply(action)
            peers += [await Peer.connect(network.port) for _ in range(3)]
        assert network.connection_count == 0
        for peer in peers:
            await peer.end()
            peer.close()
    await until(lambda: not echo.open and open_files() == files)
    assert asyncio.all_tasks() <= tasks


async def test_a_script_is_played_in_time(echo: Echo, network: ChaosProxy) -> None:
    """Its steps come when they are due, and are in the journal."""
    steps = (Step(0.05, Faults(delay=0.01)), Step(0.1, Action.STALL), Step(0.2, Action.GO_ON))
    began = time.perf_counter()
    await network.play(Script(steps, 0.3))
    assert 0.3 <= time.perf_counter() - began < 1.0
    entries = network.journal.entries
    assert [entry.what for entry in entries] == ["faults", Action.STALL, Action.GO_ON]
    assert entries[0].detail == "delay=0.01"
    assert all(entry.connection is None for entry in entries)
    times = [entry.at for entry in entries]
    assert all(at <= noted < at + 0.5 for (at, _), noted in zip(steps, times, strict=True))
    assert network.faults == Faults(delay=0.01)
    assert abs(time.time() - network.journal.began) < 10


async def test_a_script_ends_when_its_proxy_is_closed(echo: Echo) -> None:
    async with ChaosProxy(echo.port) as network:
        playing = asyncio.create_task(network.play(Script((Step(60.0, Action.CUT),))))
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await playing
    assert network.journal.entries == ()


async def test_mistakes_are_named(echo: Echo) -> None:
    network = ChaosProxy(echo.port)
    with pytest.raises(UsageError, match="not open"):
        network.apply(Action.CUT)
    with pytest.raises(UsageError, match="not open"):
        network.url_for(f"ws://127.0.0.1:{echo.port}/ws")
    async with network:
        url = f"ws://127.0.0.1:{echo.port}/ws"
        assert network.url_for(url) == f"ws://127.0.0.1:{network.port}/ws"
        with pytest.raises(UsageError, match="opened once"):
            await network.open()
        with pytest.raises(ValueError, match="unplug"):
            network.apply("unplug")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not open"):
        network.apply(CALM)
    with pytest.raises(UsageError, match="not open"):
        await network.play(Script())
    async with ChaosProxy("192.0.2.1:80") as far:
        with pytest.raises(UsageError, match="not on loopback"):
            far.apply(Action.CHANGE_ADDRESS)


def test_it_works_on_uvloop() -> None:
    """The loop that servers run on: bytes, half closes, cuts of both kinds and silence."""

    async def run() -> None:
        # uvloop answers to no signal while it waits, so this ends by itself.
        async with (
            asyncio.timeout(15),
            echoing() as echo,
            ChaosProxy(echo.port, seed=SEED) as network,
        ):
            network.apply(Faults(delay=0.005, jitter=0.01, split_bytes=100, corrupt=0.0))
            data = random.Random(SEED).randbytes(50_000)
            peer = await Peer.connect(network.port)
            sending = asyncio.create_task(send_all(peer, data))
            assert await peer.end() == (data, "end")
            await sending
            peer.close()
            for action, ending in ((Action.CUT, "end"), (Action.RESET, "reset")):
                peer = await Peer.connect(network.port)
                await peer.asked(b"hello")
                network.apply(action)
                assert (await peer.end())[1] == ending
                peer.close()
            network.apply(Action.CHANGE_ADDRESS)
            peer = await Peer.connect(network.port)
            await peer.asked(b"hello")
            assert echo.addresses[-1] == "127.0.0.2"
            peer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
