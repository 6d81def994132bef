"""An agent that looks up the weather, and an application around it."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from starlette.requests import HTTPConnection

from catenary import Run, RunFailed, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.inbound import Message
from catenary.integrations.fastapi import catenary_router

WEATHER = {"Oslo": "snow", "Rome": "sun"}


async def forecaster(run: Run, city: str) -> dict[str, str]:
    """Say what the weather is, word by word."""
    run.thinking(f"Looking up {city}")
    async with run.tool("weather", {"city": city}) as tool:
        if city not in WEATHER:
            raise RunFailed(f"nothing is known of {city}", code="unknown_city")
        tool.set_result({"weather": WEATHER[city]})
    for word in f"In {city} there is {WEATHER[city]}.".split():
        run.delta(f"{word} ")
        await asyncio.sleep(0.01)
    return {"weather": WEATHER[city]}


def make_bridge(log: str = "memory://") -> WebSocketBridgeFactory:
    """Return a bridge that answers questions with the forecaster."""
    factory = WebSocketBridgeFactory(log=log, run_drain_timeout=0.5)

    @factory.on_message("user_message")
    async def answer(message: Message, emitter: UserWebSocketEmitter) -> dict[str, str]:
        handle = emitter.start_run(forecaster, message.data["content"], agent_name="forecaster")
        return {"run_id": handle.run_id}

    return factory


async def authenticate(connection: HTTPConnection) -> str | None:
    """Stand for the application's own sign-in."""
    return connection.headers.get("x-user")


def make_app() -> FastAPI:
    """Return the application."""
    app = FastAPI()
    factory = make_bridge("memory://?private")
    app.include_router(catenary_router(factory, authenticate=authenticate), prefix="/live")
    return app
