"""An assistant that tidies up files, and asks before it deletes any; its page is plain JavaScript."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.requests import HTTPConnection

from catenary import Run, UserWebSocketEmitter, WebSocketBridgeFactory, request
from catenary.answering import Answer
from catenary.inbound import Message
from catenary.integrations.fastapi import catenary_router

HERE = Path(__file__).parent
FILES = {"report.txt": 2026, "draft.txt": 2019, "notes.txt": 2017}
PACE = float(os.environ.get("PACE", "0.05"))

factory = WebSocketBridgeFactory(log=os.environ.get("LOG", f"sqlite:///{HERE / 'events.db'}"))


@factory.on_message("user_message")
async def asked(message: Message, emitter: UserWebSocketEmitter) -> None:
    """Start an agent for a message of the user."""
    question = str(message.data["content"])
    emitter.start_run(tidy if "tidy" in question else explain, question, agent_name="assistant")


@factory.on_answer
async def answered(answer: Answer, emitter: UserWebSocketEmitter) -> None:
    """Go on when the user has answered, maybe days later."""
    emitter.start_run(delete, answer, agent_name="assistant")


async def explain(run: Run, question: str) -> None:
    """Say a lot, word by word, so that there is time to break something."""
    await say(run, f"You asked: {question} ")
    for number in range(1, 201 if "long" in question else 13):
        await say(run, f"Sentence {number} says that the log has it. ")


async def tidy(run: Run, _: str) -> None:
    """Look for old files, and end with a question: its answer may come after a restart."""
    run.thinking("Files of before 2020 are old")
    async with run.tool("list_files", {"before": 2020}) as tool:
        await asyncio.sleep(4 * PACE)
        old = [name for name, year in FILES.items() if year < 2020]
        tool.set_result(old)
    await say(run, f"{len(old)} files are old: {', '.join(old)}. ")
    run.suspend(request(f"Delete {len(old)} files?", kind="approval"), state=old)


async def delete(run: Run, answer: Answer) -> None:
    """Delete, if the user said yes."""
    old: Any = answer.state
    if answer.answer is not True:
        await say(run, "Then everything stays. ")
        return
    async with run.tool("delete_files", {"files": old}) as tool:
        await asyncio.sleep(4 * PACE)
        tool.set_result({"deleted": len(old)})
    await say(run, f"Deleted {', '.join(old)}. ")


async def say(run: Run, text: str) -> None:
    """Say a text as a model does."""
    for word in text.split():
        run.delta(f"{word} ")
        await asyncio.sleep(PACE)


async def authenticate(_: HTTPConnection) -> str:
    """Stand for your own sign-in: here everybody is the same user."""
    return "user_123"


app = FastAPI()
app.include_router(catenary_router(factory, authenticate=authenticate), prefix="/live")
# The client, as one file without a build; pages with a build take `catenary-client` of npm.
app.mount("/client", StaticFiles(packages=[("catenary.demo", "static")]))
app.mount("/", StaticFiles(directory=HERE / "page", html=True))

if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    print(f"http://127.0.0.1:{port}", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
