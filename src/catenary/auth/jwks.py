"""Keys published at an address (RFC 7517)."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import httpx
import msgspec
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from catenary.auth.keys import PUBLIC_ALGORITHMS, SECRET_ALGORITHM, Key, algorithm_of
from catenary.errors import AuthError, CloseCode, ConfigError

FETCH_TIMEOUT = 5.0
FRESH = 600.0
ATTEMPT_INTERVAL = 10.0
DOCUMENT_MAX_BYTES = 512 * 1024

_log = logging.getLogger("catenary.auth")


class RemoteKeys:
    """
    The public keys at one configured address, and at no other.

    They are kept for 10 minutes, and asked for again when a token names one
    that is not among them. An attempt is made at most once in 10 s; all who
    need it share it. While the address does not answer, the keys had before
    go on serving.

    May be used from several event loops; each waits for fetches of its own.
    """

    def __init__(self, url: str, *, algorithms: Sequence[str], clock: Callable[[], float]) -> None:
        """
        Raises:
            ConfigError: If ``url`` is neither https nor http on loopback, or
                HS256 is among ``algorithms``.
        """
        if SECRET_ALGORITHM in algorithms:
            raise ConfigError(f"published keys are public, so they never verify {SECRET_ALGORITHM}")
        self.algorithms = frozenset(algorithms or PUBLIC_ALGORITHMS)
        self._url = _checked_url(url)
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._fetched_at = -math.inf
        self._attempted_at = -math.inf
        self._is_failing = False
        self._fetching: asyncio.Task[bool] | None = None
        self._tls: ssl.SSLContext | None = None

    async def find(self, algorithm: str, kid: str | None) -> Key:
        """
        The key for ``algorithm`` that the address publishes as ``kid``.

        A token without a ``kid`` gets the address's only key for its algorithm.

        Raises:
            AuthError: ``signature`` if the address publishes no such key;
                ``keys_unavailable`` (503, may try again) if it did not answer,
                or was asked too short a time ago to be asked again.
        """
        key = self._lookup(algorithm, kid)
        if key is not None and self._is_fresh():
            return key
        fetch = self._fetch_if_due()
        if key is not None and self._is_failing:
            return key
        answered = fetch is not None and await asyncio.shield(fetch)
        key = self._lookup(algorithm, kid)
        if key is not None:
            return key
        raise _unknown_key() if answered else _keys_unavailable()

    def trusted_until(self) -> float:
        """Until when a verification may be remembered: a withdrawn key counts no longer."""
        return self._fetched_at + FRESH

    def _lookup(self, algorithm: str, kid: str | None) -> Key | None:
        fitting = [key for key in self._keys if key.algorithm == algorithm]
        if kid is None:
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.kid == kid), None)

    def _is_fresh(self) -> bool:
        # Also false for a clock that was set back, which would else trust for ever.
        return 0 <= self._clock() - self._fetched_at < FRESH

    def _fetch_if_due(self) -> asyncio.Task[bool] | None:
        """The fetch under way, or a new one; None if the last was too short a time ago."""
        running, loop = self._fetching, asyncio.get_running_loop()
        if running is not None and not running.done() and running.get_loop() is loop:
            return running
        now = self._clock()
        if 0 <= now - self._attempted_at < ATTEMPT_INTERVAL:
            return None
        self._attempted_at = now
        self._fetching = loop.create_task(self._fetch(now), name="catenary-jwks")
        return self._fetching

    async def _fetch(self, now: float) -> bool:
        """Fetch once; False, after a log record, if the keys could not be had."""
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                document = await self._download()
            keys = tuple(_usable_keys(document, self.algorithms))
        except (
            httpx.HTTPError,
            OSError,
            msgspec.MsgspecError,
            ValueError,
            RecursionError,
        ) as error:
            self._is_failing = True
            _log.warning(
                "the JWKS address at %s gave no keys (%s: %s); %d had before go on serving",
                self._url.host,
                type(error).__name__,
                error,
                len(self._keys),
            )
            return False
        if not keys:
            _log.warning(
                "the JWKS address at %s publishes no key for %s: every token will be refused",
                self._url.host,
                ", ".join(sorted(self.algorithms)),
            )
        self._keys, self._fetched_at, self._is_failing = keys, now, False
        return True

    async def _download(self) -> bytes:
        if self._tls is None:
            self._tls = await asyncio.to_thread(httpx.create_ssl_context)
        # A proxy from the environment may carry https, which it cannot read;
        # handed a loopback request it could answer with keys of its own.
        client = httpx.AsyncClient(
            verify=self._tls,
            timeout=FETCH_TIMEOUT,
            follow_redirects=False,
            trust_env=self._url.scheme == "https",
        )
        body = bytearray()
        async with client, client.stream("GET", self._url) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"status {response.status_code}")
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > DOCUMENT_MAX_BYTES:
                    raise ValueError(f"over {DOCUMENT_MAX_BYTES:,} bytes")
        return bytes(body)


def _checked_url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError) as error:
        raise ConfigError("the JWKS address is not a URL") from error
    if url.host and (url.scheme == "https" or (url.scheme == "http" and _is_loopback(url.host))):
        return url
    raise ConfigError(
        "the JWKS address must be https://…; plain http is for this machine's loopback only, "
        "for whoever can change the answer can sign in as anybody"
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


def _usable_keys(document: bytes, algorithms: frozenset[str]) -> Iterable[Key]:
    for published in msgspec.json.decode(document, type=_KeySet).keys:
        key = _usable_key(published)
        if key is not None and key.algorithm in algorithms:
            yield key


def _usable_key(published: Mapping[str, Any]) -> Key | None:
    """The key, for the one algorithm of its kind; None if it says that it is for something else."""
    if published.get("use", "sig") != "sig":
        return None
    try:
        if "verify" not in published.get("key_ops", ["verify"]):
            return None
        material = PyJWK(dict(published)).key
    except (PyJWTError, ValueError, TypeError):
        return None
    algorithm = algorithm_of(material)
    if algorithm is None or published.get("alg", algorithm) != algorithm:
        return None
    kid = published.get("kid")
    return Key(algorithm, material, kid if isinstance(kid, str) else None)


def _unknown_key() -> AuthError:
    return AuthError("the token is signed with a key that is not known here", reason="signature")


def _keys_unavailable() -> AuthError:
    return AuthError(
        "the keys that verify tokens cannot be had now; try again",
        reason="keys_unavailable",
        close_code=CloseCode.OVERLOADED,
        status=503,
    )
