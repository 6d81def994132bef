"""A certificate for a validation over TLS, made for it and trusted by nobody else."""

from __future__ import annotations

import ssl as ssl_module
from typing import TYPE_CHECKING

from catenary.errors import ConfigError

if TYPE_CHECKING:
    import uvicorn


class Certificate:
    """
    An authority of its own and a certificate for loopback.

    Raises:
        ConfigError: If trustme is not installed.
    """

    def __init__(self) -> None:
        try:
            import trustme  # noqa: PLC0415 - an extra, needed for TLS alone
        except ImportError as error:
            raise ConfigError(
                "a validation over TLS needs trustme: pip install 'catenary[validate]'"
            ) from error
        self._authority = trustme.CA()
        self._certificate = self._authority.issue_cert("127.0.0.1", "localhost")

    def client_context(self) -> ssl_module.SSLContext:
        """Return what a client needs to trust it."""
        context = ssl_module.create_default_context()
        self._authority.configure_trust(context)
        return context

    def serve_with(self, config: uvicorn.Config) -> None:
        """Let a server show it, whose settings are complete but for that: they are loaded here."""
        with self._certificate.private_key_and_cert_chain_pem.tempfile() as path:
            config.ssl_certfile = path
            config.load()
