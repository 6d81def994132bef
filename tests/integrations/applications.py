"""Applications that the tests serve with several ASGI servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Mount

from catenary import Identity, WebSocketBridgeFactory
from catenary.auth import JwtVerifier
from catenary.inbound import Message
from catenary.integrations.fastapi import CurrentIdentity, UserEmitter, catenary_router

SECRET = "a-secret-of-more-than-thirty-two-bytes"
API_KEY = "an-api-key-for-producers"


def new_factory() -> WebSocketBridgeFactory:
    factory = WebSocketBridgeFactory(log="memory://?private", run_drain_timeout=0.2)

    @factory.on_message("user_message")
    async def answer(message: Message, emitter: Any) -> dict[str, Any]:
        async def agent(run: Any) -> str:
            run.delta("hello")
            return "done"

        return {"run_id": emitter.start_run(agent).run_id}

    return factory


async def by_header(connection: HTTPConnection) -> str | None:
    """An application's own way: the user stands in a header."""
    return connection.headers.get("x-user")


class Sessions:
    """What an application would look its users up in."""

    closed = 0

    def find(self, session: str) -> Identity | None:
        return Identity(user_id=session.removeprefix("session-of-"), session_id=session)


async def sessions() -> AsyncIterator[Sessions]:
    """A dependency with an end of its own."""
    yield Sessions()
    Sessions.closed += 1


async def by_session(
    found: Annotated[Sessions, Depends(sessions)], x_session: Annotated[str, Header()]
) -> Identity | None:
    """A dependency with dependencies, which may refuse."""
    if x_session == "blocked":
        raise HTTPException(403, "this user is blocked")
    if x_session == "later":
        raise HTTPException(500, "the database is away")
    if x_session == "nobody":
        return None
    return found.find(x_session)


def new_app(factory: WebSocketBridgeFactory | None = None, **options: Any) -> FastAPI:
    app = FastAPI()
    options = {"authenticate": by_session, "api": True, "health": True, **options}
    router = catenary_router(
        factory or new_factory(), metrics=True, open_metrics=True, api_key=API_KEY, **options
    )
    app.include_router(router, prefix="/live")

    @app.get("/me")
    async def me(identity: CurrentIdentity) -> dict[str, str | None]:
        return {"user_id": identity.user_id, "session_id": identity.session_id}

    @app.post("/notes")
    async def notes(emitter: UserEmitter) -> dict[str, str]:
        return {"position": str(await emitter.custom("app.note", {"from": "an endpoint"}))}

    return app


def fastapi_app() -> FastAPI:
    """For servers that call a factory of applications."""
    return new_app(authenticate=by_header)


def mounted_app() -> Starlette:
    """The raw application below a path of another, which starts and stops it."""
    factory = new_factory()

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await factory.start()
        yield
        await factory.stop()

    bridge = factory.asgi_app(verifier=JwtVerifier(secret=SECRET), authenticate=by_header)
    return Starlette(routes=[Mount("/live", app=bridge)], lifespan=lifespan)


fastapi = fastapi_app()
mounted = mounted_app()
