"""What stands before several nodes, with the files of ``deploy/``: HAProxy and nginx."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence

import httpx
import pytest

from catenary.validate.stores import StartedServer

from .server import API_KEY, REPOSITORY

DEPLOY = REPOSITORY / "deploy"
PATIENCE = 20.0


def program(name: str) -> str:
    """Return the path of a program; where it is missing the test is skipped, but not in CI."""
    found = shutil.which(name)
    if found is None:
        text = f"{name} is not installed"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(text)
    return found


class Balancer(StartedServer):
    """A program that passes one port on to those of several nodes, until the block ends."""

    def __init__(self, nodes: Sequence[int]) -> None:
        super().__init__()
        self._nodes = nodes

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def websocket(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def api(self) -> httpx.AsyncClient:
        """Return a client of the API behind it that shows the key."""
        return httpx.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {API_KEY}"},
            timeout=20,
            trust_env=False,
            # Without TLS; to load the system's certificates takes longer than all else.
            verify=False,
        )


class HAProxy(Balancer):
    """HAProxy with ``deploy/haproxy.cfg``, and a socket on which it says what it thinks of nodes."""

    def _command(self) -> Sequence[str]:
        first, second = self._nodes
        more = self.directory / "socket.cfg"
        more.write_text(f"global\n  stats socket {self.directory}/haproxy.sock mode 600\n")
        return (
            *("env", f"CATENARY_BIND=127.0.0.1:{self.port}"),
            *(f"CATENARY_NODE_1=127.0.0.1:{first}", f"CATENARY_NODE_2=127.0.0.1:{second}"),
            *(program("haproxy"), "-db", "-f", str(DEPLOY / "haproxy.cfg"), "-f", str(more)),
        )

    async def until(self, state: str, *, node: int) -> None:
        """Wait until it takes a node for ``UP`` or ``DOWN``."""
        async with asyncio.timeout(PATIENCE):
            while (await self._states())[f"node{node + 1}"] != state:
                await asyncio.sleep(0.05)

    async def _states(self) -> dict[str, str]:
        reader, writer = await asyncio.open_unix_connection(f"{self.directory}/haproxy.sock")
        writer.write(b"show stat\n")
        lines = (await reader.read()).decode().splitlines()
        writer.close()
        await writer.wait_closed()
        rows = [line.split(",") for line in lines[1:] if line]
        status = lines[0].removeprefix("# ").split(",").index("status")
        return {row[1]: row[status] for row in rows}


class Nginx(Balancer):
    """nginx with ``deploy/nginx.conf``, in which only ports and paths are those of the test."""

    def _command(self) -> Sequence[str]:
        first, second = self._nodes
        site = (DEPLOY / "nginx.conf").read_text()
        for written, here in (
            ("127.0.0.1:8000", f"127.0.0.1:{first}"),
            ("127.0.0.1:8001", f"127.0.0.1:{second}"),
            ("listen 8080", f"listen 127.0.0.1:{self.port}"),
            ("/var/log/nginx", str(self.directory)),
        ):
            assert site.count(written) == 1, written
            site = site.replace(written, here)
        (self.directory / "site.conf").write_text(site)
        path = self.directory / "nginx.conf"
        path.write_text(
            f"daemon off;\npid {self.directory}/pid;\nerror_log {self.directory}/errors;\n"
            "events {}\nhttp {\n"
            + "".join(
                f"  {kind}_temp_path {self.directory}/{kind};\n"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            + f"  include {self.directory}/site.conf;\n}}\n"
        )
        return (program("nginx"), "-e", f"{self.directory}/errors", "-c", str(path))

    def logged(self) -> str:
        """Return its log of requests."""
        return (self.directory / "catenary.log").read_text()
