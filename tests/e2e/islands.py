"""A network that is cut: a namespace of its own, and a packet filter that drops one way."""

from __future__ import annotations

import os
import shutil
import subprocess
from types import TracebackType
from typing import Self

import pytest


class Island:
    """
    A network namespace that is reached over one link, until packets are dropped there.

    Where namespaces or the filter are not permitted the test is skipped.
    """

    def __init__(self) -> None:
        number = os.getpid() % 60_000
        self._name = f"catenary-{number}"
        self._links = f"cty{number}a", f"cty{number}b"
        net = f"10.{77 + number // 16384}.{number // 64 % 256}"
        self._near, self.host = f"{net}.1", f"{net}.2"

    @property
    def inside(self) -> tuple[str, ...]:
        """What comes before a command that is to run there."""
        return ("ip", "netns", "exec", self._name)

    def cut(self, direction: str) -> None:
        """Drop what goes to the island (``in``) or what comes from it (``out``)."""
        hook = {"in": "input", "out": "output"}[direction]
        self._run(*self.inside, "nft", "add", "table", "ip", "cut")
        chain = f"add chain ip cut {hook} {{ type filter hook {hook} priority 0; policy drop; }}"
        self._run(*self.inside, "nft", chain)

    def mend(self) -> None:
        """Drop nothing more."""
        self._run(*self.inside, "nft", "delete", "table", "ip", "cut")

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")

    def __enter__(self) -> Self:
        missing = [name for name in ("ip", "nft") if shutil.which(name) is None]
        if missing:
            pytest.skip(f"{' and '.join(missing)} not installed")
        near, far = self._links
        name = self._name
        try:
            self._run("ip", "netns", "add", name)
            self._run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
            self._run("ip", "address", "add", f"{self._near}/24", "dev", near)
            self._run("ip", "link", "set", near, "up")
            self._run("ip", "-n", name, "address", "add", f"{self.host}/24", "dev", far)
            self._run("ip", "-n", name, "link", "set", far, "up")
            self._run("ip", "-n", name, "link", "set", "lo", "up")
            self.cut("in")
            self.mend()
        except OSError as error:
            self.__exit__(None, None, None)
            pytest.skip(f"network namespaces and nftables are not permitted here: {error}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The link goes with its namespace, once nothing runs there.
        subprocess.run(("ip", "netns", "delete", self._name), capture_output=True, check=False)
        subprocess.run(("ip", "link", "delete", self._links[0]), capture_output=True, check=False)
