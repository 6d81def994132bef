"""An agent of Pydantic AI behind a page that speaks AG-UI."""

from __future__ import annotations

import os
from pathlib import Path

import uvicorn
from agent import agent
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.requests import HTTPConnection

from catenary import Run, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.answering import Answer
from catenary.inbound import Message
from catenary.integrations.fastapi import catenary_router
from catenary.integrations.pydantic_ai import relay, resume, suspend

HERE = Path(__file__).parent

factory = WebSocketBridgeFactory(log=os.environ.get("LOG", f"sqlite:///{HERE / 'events.db'}"))


@factory.on_message("user_message")
async def asked(message: Message, emitter: UserWebSocketEmitter) -> None:
    """Start the agent for a message of the user."""
    emitter.start_run(answer, str(message.data["content"]), agent_name="assistant")


@factory.on_answer
async def answered(given: Answer, emitter: UserWebSocketEmitter) -> None:
    """Go on when the user has answered, maybe days later: the agent's messages are kept with the question."""
    emitter.start_run(go_on, given, agent_name="assistant")


async def answer(run: Run, question: str) -> None:
    """Relay the agent; end with its questions, if it has any."""
    suspend(run, await relay(agent.run_stream_events(question), run))


async def go_on(run: Run, given: Answer) -> None:
    """Relay the agent from where it asked."""
    suspend(run, await relay(agent.run_stream_events(**resume(given)), run))


async def authenticate(_: HTTPConnection) -> str:
    """Stand for your own sign-in: here everybody is the same user."""
    return "user_123"


app = FastAPI()
app.include_router(
    catenary_router(factory, authenticate=authenticate, wires=["ag-ui"]), prefix="/live"
)
app.mount("/", StaticFiles(directory=HERE / "dist", html=True))

if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    print(f"http://127.0.0.1:{port}", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
