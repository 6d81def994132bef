"""The wires of other clients, as routes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from starlette.routing import BaseRoute, WebSocketRoute

from catenary.errors import ConfigError
from catenary.serving.admission import Admission
from catenary.serving.ag_ui import AgUiEndpoint
from catenary.serving.ag_ui_socket import AgUiSocket, TanStackSocket
from catenary.serving.ai_sdk import AiSdkEndpoint
from catenary.serving.ai_sdk_socket import AiSdkSocket
from catenary.serving.answers import route
from catenary.serving.turns import Turns
from catenary.serving.wire_socket import OnAbort, WireEndpoint, WireSocket


class Wires:
    """
    The endpoints of the wires that were chosen.

    Raises:
        ConfigError: If there is no such wire.
    """

    def __init__(self, admission: Admission, names: Sequence[str], *, on_abort: OnAbort) -> None:
        self._turns = Turns(admission)
        self._on_abort = on_abort
        known: dict[str, Callable[[], list[BaseRoute]]] = {
            "ai-sdk": self._ai_sdk,
            "ag-ui": self._ag_ui,
            "tanstack": self._tanstack,
        }
        unknown = set(names) - set(known)
        if unknown:
            text = f"no such wire: {', '.join(sorted(unknown))}; there are {', '.join(known)}"
            raise ConfigError(text)
        self._chosen = [known[name] for name in dict.fromkeys(names)]

    def routes(self) -> list[BaseRoute]:
        """Return their routes."""
        return [one for routes in self._chosen for one in routes()]

    def _ai_sdk(self) -> list[BaseRoute]:
        http = AiSdkEndpoint(self._turns)
        return [
            route("/ai-sdk", http.send, "POST"),
            route("/ai-sdk/{chat:path}/stream", http.resume, "GET"),
            route("/ai-sdk/{chat:path}/stop", http.stop, "POST"),
            self._socket("/ws/ai-sdk", AiSdkSocket),
        ]

    def _ag_ui(self) -> list[BaseRoute]:
        http = AgUiEndpoint(self._turns)
        return [
            route("/ag-ui", http.run, "POST"),
            route("/ag-ui/connect", http.connect, "POST"),
            route("/ag-ui/stop", http.stop, "POST"),
            self._socket("/ws/ag-ui", AgUiSocket),
            self._socket("/ws/ag-ui/connect", AgUiSocket),
        ]

    def _tanstack(self) -> list[BaseRoute]:
        return [self._socket("/ws/tanstack", TanStackSocket)]

    def _socket(self, path: str, kind: Callable[..., WireSocket]) -> BaseRoute:
        made = partial(kind, self._turns, on_abort=self._on_abort)
        return WebSocketRoute(path, endpoint=WireEndpoint(self._turns, made))
