"""The constructor of ``MessageHandlerService``: what it takes, and what it says to the rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from catenary.emitter import UserWebSocketEmitter
from catenary.eventlog.memory import MemoryLog
from catenary.factory import WebSocketBridgeFactory, get_websocket_manager
from catenary.inbound import HandlerConfig, Message, MessageHandlerService
from catenary.manager import WebSocketManager
from catenary.validate.crowd import crowd
from catenary.validate.field import Field
from catenary.validate.rows import Subject, Suite

constructor = Suite(
    "constructor",
    "The service takes one manager, and names what is wrong.",
    subject=Subject.PACKAGE,
)


def _manager() -> WebSocketManager:
    return WebSocketManager(MemoryLog())


VALID: dict[str, Callable[[], dict[str, Any]]] = {
    "the manager alone": lambda: {"websocket_manager": _manager()},
    "everything": lambda: {
        "websocket_manager": _manager(), "redis_client": object(), "db_session": object(),
        "logger": logging.getLogger("application"), "config": HandlerConfig(timeout=5),
    },
    "config as a mapping": lambda: {"websocket_manager": _manager(), "config": {"timeout": 5.0}},
}  # fmt: skip

MEANT = "did you mean 'websocket_manager'"

INVALID: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "no manager": (dict, "websocket_manager"),
    "websocket=": (lambda: {"websocket": _manager()}, MEANT),
    "manager=": (lambda: {"manager": _manager()}, MEANT),
    "ws_manager=": (lambda: {"ws_manager": _manager()}, MEANT),
    "an unknown name": (lambda: {"websocket_manager": _manager(), "cache": 1}, "cache"),
    "a manager of another type": (lambda: {"websocket_manager": "ws://host"}, "str"),
    "a logger of another type": (
        lambda: {"websocket_manager": _manager(), "logger": "root"}, "logger",
    ),
    "a config of another type": (
        lambda: {"websocket_manager": _manager(), "config": 30}, "config",
    ),
}  # fmt: skip


def _add_valid(name: str, arguments: Callable[[], dict[str, Any]]) -> None:
    @constructor.row(
        f"valid: {name}", asked="it is made, keeps all that it was given, and takes handlers"
    )
    async def valid(field: Field) -> str:
        given = arguments()
        service = MessageHandlerService(**given)
        service.register("validate.any", _echo)
        field.expect(service.handles("validate.any"), "a registered handler is not known")
        for argument, value in given.items():
            kept = getattr(service, argument.removeprefix("websocket_"))
            wanted = HandlerConfig(**value) if isinstance(value, dict) else value
            field.expect(kept == wanted, f"its {argument} is {kept!r}")
        return f"made, with its handler and {', '.join(given)}"


def _add_invalid(name: str, arguments: Callable[[], dict[str, Any]], named: str) -> None:
    @constructor.row(f"invalid: {name}", asked=f"a TypeError that says {named!r}")
    async def invalid(field: Field) -> str:
        try:
            MessageHandlerService(**arguments())
        except TypeError as error:
            field.expect(named in str(error), f"the text does not say {named!r}: {error}")
            return f"TypeError: {error!s:.90}"
        field.expect(condition=False, text="it was made")
        return "it was made"


async def _echo(message: Message, emitter: UserWebSocketEmitter) -> Any:  # noqa: ARG001 - a handler's form
    return message.data


for _name, _arguments in VALID.items():
    _add_valid(_name, _arguments)
for _name, (_arguments, _named) in INVALID.items():
    _add_invalid(_name, _arguments, _named)


def _direct(factory: WebSocketBridgeFactory) -> Any:
    return factory.manager


def _from_factory(factory: WebSocketBridgeFactory) -> Any:
    return lambda: factory.manager


def _singleton(factory: WebSocketBridgeFactory) -> Any:  # noqa: ARG001 - one form for all
    return get_websocket_manager


class _Lazy:
    """Finds its manager with the first use, as a container of an application does."""

    def __init__(self, factory: WebSocketBridgeFactory) -> None:
        self._factory = factory
        self.asked = 0

    def __call__(self) -> WebSocketManager:
        self.asked += 1
        return self._factory.manager


INJECTIONS: dict[str, Callable[[WebSocketBridgeFactory], Any]] = {
    "direct": _direct,
    "factory": _from_factory,
    "singleton": _singleton,
    "lazy": _Lazy,
}


def _add_injection(name: str, inject: Callable[[WebSocketBridgeFactory], Any]) -> None:
    @constructor.row(f"injection: {name}", asked="it is made, and finds its manager")
    async def injection(field: Field) -> str:
        factory = WebSocketBridgeFactory("memory://?private")
        injected = inject(factory)
        service = MessageHandlerService(websocket_manager=injected)
        if isinstance(injected, _Lazy):
            field.expect(injected.asked == 0, "the lazy getter was asked at once")
        expected = get_websocket_manager() if name == "singleton" else factory.manager
        field.expect(service.manager is expected, "it has another manager")
        return f"{name}: its manager is the one that was meant"


for _name, _inject in INJECTIONS.items():
    _add_injection(_name, _inject)


@constructor.row(
    "injection: circular",
    asked="a service as its own manager is refused, and so is a getter that asks for itself",
)
async def circular(field: Field) -> str:
    service = MessageHandlerService(websocket_manager=_manager())
    asking: list[MessageHandlerService] = []
    asking.append(MessageHandlerService(websocket_manager=lambda: asking[0].manager))
    attempts: tuple[Callable[[], object], ...] = (
        lambda: MessageHandlerService(websocket_manager=service),
        lambda: asking[0].manager,
    )
    texts = []
    for attempt in attempts:
        try:
            attempt()
        except TypeError as error:
            texts.append(f"TypeError: {error!s:.90}")
    field.expect(len(texts) == len(attempts), f"{len(texts)} of {len(attempts)} were refused")
    return "; ".join(texts)


@constructor.row("20 at once", asked="20 threads make one each: 20 services, each with its handler")
async def twenty_at_once(field: Field) -> str:
    manager = _manager()

    def make(number: int) -> MessageHandlerService:
        service = MessageHandlerService(websocket_manager=manager)
        service.register(f"validate.{number}", _echo)
        return service

    members = await crowd(20, make)
    services = [members.results[number] for number in range(20)]
    handled = [[n for n in range(20) if s.handles(f"validate.{n}")] for s in services]
    whole = [service for n, service in enumerate(services) if handled[n] == [n]]
    field.expect(len({id(s) for s in whole}) == 20, f"{len(whole)} of 20 are whole")
    await asyncio.sleep(0)
    return f"{len(whole)} of 20 services, each with its own handler"
