import { Chat } from "@ai-sdk/react";
import {
  DefaultChatTransport,
  lastAssistantMessageIsCompleteWithApprovalResponses,
  WebSocketChatTransport,
  type ChatTransport,
  type UIMessage,
} from "ai";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import WebSocket from "ws";

import { Cutter } from "../../../tests/frontends/test/cutter.js";
import { newUser, randomOf, Server } from "../../../tests/frontends/test/server.js";
import { chatFor, followChat, forgetChats, webSocket, type WebSocketOptions } from "../src/ai.js";
import { connect, type Client, type Options } from "../src/index.js";

const SocketClass = WebSocket as unknown as NonNullable<Options["WebSocket"]>;

let server: Server;
let user: string;
const clients: Client[] = [];

beforeAll(async () => {
  server = await Server.start();
});

beforeEach(() => {
  user = newUser();
});

afterAll(async () => {
  for (const client of clients) client.close();
  await server.stop();
});

const hostOf = (): string => new URL(server.url).host;

function transportTo(host = hostOf(), options: WebSocketOptions = {}): ChatTransport<UIMessage> {
  const webSocketClass = webSocket({ WebSocket: SocketClass, page: {}, ...options });
  return new WebSocketChatTransport({ url: `ws://${host}/ws/ai-sdk`, params: { user }, webSocket: webSocketClass });
}

function chatOn(transport: ChatTransport<UIMessage>): Chat<UIMessage> {
  const sendAutomaticallyWhen = lastAssistantMessageIsCompleteWithApprovalResponses;
  return new Chat({ id: "chat 1/ä", transport, sendAutomaticallyWhen });
}

/** The native wire of the same user. */
function clientTo(host = hostOf()): Client {
  const client = connect({ url: `ws://${host}/ws?user=${user}`, after: "now", WebSocket: SocketClass, page: {} });
  clients.push(client);
  return client;
}

const ask = (chat: Chat<UIMessage>, text: string): Promise<void> => chat.sendMessage({ text });

function textOf(chat: Chat<UIMessage>, role = "assistant"): string {
  const parts = chat.messages.filter((message) => message.role === role).flatMap((message) => message.parts);
  return parts.map((part) => (part.type === "text" ? part.text : "")).join("");
}

function approvalOf(chat: Chat<UIMessage>): string | undefined {
  const parts = chat.messages.flatMap((message) => message.parts);
  return parts.flatMap((part) => ("state" in part && part.state === "approval-requested" ? part.approval.id : []))[0];
}

const until = (holds: () => boolean | Promise<boolean>): Promise<void> =>
  vi.waitFor(async () => expect(await holds(), String(holds)).toBe(true), { timeout: 15_000, interval: 10 });

describe("a socket that comes back", () => {
  test("through a network that cuts, a chat shows what was emitted, and no error", async () => {
    const seed = 20261129;
    console.log(`seed ${seed}`);
    const random = randomOf(seed);
    const cutter = await Cutter.start(server.port, () => 2500 + random() * 9000);
    for (let round = 0; round < 3; round++) {
      user = newUser();
      const chat = chatOn(transportTo(cutter.host));
      await ask(chat, "text:150 tool:2 burst:200 think:3 text:50");
      expect(chat.error).toBeUndefined();
      expect(textOf(chat)).toBe(await server.emitted(user));
      expect(await server.runs(user)).toHaveLength(1);
    }
    expect(cutter.cuts).toBeGreaterThan(3);
    await cutter.stop();
  });

  test("a page that resumes is cut too, and shows all of it", async () => {
    const random = randomOf(20261130);
    const cutter = await Cutter.start(server.port, () => 2500 + random() * 9000);
    const asking = ask(chatOn(transportTo()), "text:200 burst:300 text:100");
    await server.until(user, ([run]) => run !== undefined);
    const chat = chatOn(transportTo(cutter.host));
    await chat.resumeStream();
    expect(chat.error).toBeUndefined();
    expect(textOf(chat)).toBe(await server.emitted(user));
    await asking;
    expect(cutter.cuts).toBeGreaterThan(1);
    await cutter.stop();
  });

  test("a stop while there is no connection is made up for", async () => {
    let limit = Infinity;
    const cutter = await Cutter.start(server.port, () => limit);
    const chat = chatOn(transportTo(cutter.host));
    const asking = ask(chat, "text:3 wait");
    await until(() => textOf(chat).includes("2é"));
    limit = 0;
    cutter.cut();
    await chat.stop();
    await asking;
    expect((await server.runs(user))[0]?.status).toBe("running");
    limit = Infinity;
    await server.until(user, ([run]) => run?.status === "cancelled");
    expect(textOf(chat)).toBe("0é✓ 1é✓ 2é✓ ");
    await cutter.stop();
  });

  test("a connection that is lost while nothing is asked is not opened again until something is", async () => {
    let connections = 0;
    const cutter = await Cutter.start(server.port, () => (connections++, Infinity));
    const chat = chatOn(transportTo(cutter.host));
    await ask(chat, "text:2");
    cutter.cut();
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(connections).toBe(1);
    await ask(chat, "text:3");
    expect(chat.error).toBeUndefined();
    expect(connections).toBe(2);
    expect(textOf(chat)).toBe(await server.emitted(user));
    await cutter.stop();
  });

  test("a network that is gone without a word is noticed when the page is online again", async () => {
    const page = new EventTarget();
    const cutter = await Cutter.start(server.port, () => Infinity);
    const chat = chatOn(transportTo(cutter.host, { page: page as NonNullable<Options["page"]> }));
    const asking = ask(chat, "text:300");
    await until(() => textOf(chat).includes("10é"));
    cutter.freeze();
    page.dispatchEvent(new Event("online"));
    await asking;
    expect(chat.error).toBeUndefined();
    expect(textOf(chat)).toBe(await server.emitted(user));
    await cutter.stop();
  });

  test("a failure of the agent is shown as such, and not tried again", async () => {
    const chat = chatOn(transportTo());
    await ask(chat, "text:2 fail");
    expect(String(chat.error)).toContain("the agent failed");
    expect(textOf(chat)).toBe("0é✓ 1é✓ ");
    expect(await server.runs(user)).toHaveLength(1);
  });

  test("the token is asked for anew for every attempt, after the subprotocols of the page", async () => {
    const offered: string[][] = [];
    let tokens = 0;
    class Offering extends WebSocket {
      constructor(url: string, protocols: string[]) {
        super(url, protocols);
        offered.push(protocols);
      }
    }
    const WebSocketClass = Offering as unknown as NonNullable<Options["WebSocket"]>;
    const cutter = await Cutter.start(server.port, () => Infinity);
    const chat = chatOn(transportTo(cutter.host, { WebSocket: WebSocketClass, token: () => `t${++tokens}` }));
    const asking = ask(chat, "text:200");
    await until(() => textOf(chat).includes("5é"));
    cutter.cut();
    await asking;
    expect(offered).toEqual([
      ["catenary.v1", "catenary.bearer.t1"],
      ["catenary.v1", "catenary.bearer.t2"],
    ]);
    await cutter.stop();
  });

  test("a page that may not come in is told so, and does not go on trying", async () => {
    user = "";
    const chat = chatOn(transportTo());
    await ask(chat, "text:1");
    expect(String(chat.error)).toContain("network connection closed");
    expect(chat.status).toBe("error");
  });

  test("approved after the server was killed and started again: the same chat goes on", { timeout: 60_000 }, async () => {
    const folder = mkdtempSync(join(tmpdir(), "catenary-"));
    const env = { LOG: `sqlite:///${folder}/events.db` };
    let other = await Server.start(0, env);
    const { port } = other;
    try {
      const chat = chatOn(transportTo(`127.0.0.1:${port}`));
      await ask(chat, "text:3 suspend text:3");
      await other.stop("SIGKILL");
      other = await Server.start(port, env);
      await chat.addToolApprovalResponse({ id: approvalOf(chat) ?? "", approved: true });
      await until(() => chat.status === "ready" && approvalOf(chat) === undefined && textOf(chat).endsWith("2é✓ "));
      expect(textOf(chat)).toBe(await other.emitted(user));
      expect(chat.messages).toHaveLength(2);
    } finally {
      await other.stop();
      rmSync(folder, { recursive: true });
    }
  });
});

const TRANSPORTS = {
  WebSocketChatTransport: () => transportTo(),
  DefaultChatTransport: () =>
    new DefaultChatTransport<UIMessage>({ api: `${server.url}/ai-sdk`, headers: { "x-user": user } }),
};

describe.each(Object.entries(TRANSPORTS))("followed, over %s", (_, transport) => {
  test("another tab shows the question, the answer, and what is said after an approval in either", async () => {
    const [first, second] = [chatOn(transport()), chatOn(transport())];
    const ends = [followChat(first, clientTo()), followChat(second, clientTo())];
    await until(() => clients.slice(-2).every((client) => client.state === "live"));
    await ask(first, "text:20 suspend text:2 suspend text:2");
    await until(() => second.status === "ready" && approvalOf(second) !== undefined);
    await vi.waitFor(() => expect(second.messages.map(shown)).toEqual(first.messages.map(shown)));
    await second.addToolApprovalResponse({ id: approvalOf(second) ?? "", approved: true });
    await until(() => [first, second].every((chat) => chat.status === "ready" && textOf(chat).includes("True")));
    await until(() => [first, second].every((chat) => chat.status === "ready" && approvalOf(chat) !== undefined));
    await first.addToolApprovalResponse({ id: approvalOf(first) ?? "", approved: false });
    const emitted = (): Promise<string> => server.emitted(user);
    await server.until(user, (runs) => runs.length === 3 && runs[2]?.status === "completed");
    for (const chat of [first, second]) {
      await until(async () => chat.status === "ready" && textOf(chat) === (await emitted()));
      expect(chat.messages.map(({ role }) => role)).toEqual(["user", "assistant"]);
    }
    // The other way round, and in one conversation.
    await ask(second, "text:3");
    await until(async () => first.status === "ready" && textOf(first) === (await emitted()));
    expect(textOf(first, "user")).toBe(textOf(second, "user"));
    for (const end of ends) end();
  });

  test("a page that is loaded in the middle of an answer shows the rest, and loads what was before", async () => {
    const asked = chatOn(transport());
    await ask(asked, "text:2");
    const asking = ask(asked, "text:150");
    await server.until(user, (runs) => (runs[1]?.messages?.[0]?.text ?? "").includes("5é"));
    const chat = chatOn(transport());
    const history = structuredClone(asked.messages.slice(0, 3));
    const end = followChat(chat, clientTo(), { load: async () => history });
    await until(() => chat.status === "streaming");
    await asking;
    await until(() => chat.status === "ready");
    expect(chat.messages.map(shown)).toEqual(asked.messages.map(shown));
    end();
  });
});

/** Without what only the tab that asked knows. */
function shown(message: UIMessage): UIMessage {
  const { id, role, parts } = message;
  return { id, role, parts };
}

test.each([
  ["the native wire too", true],
  ["nothing else", false],
])("a chat over HTTP whose network was cut, and %s, reads on when it can", async (_, isAll) => {
  let limit = Infinity;
  const cutter = await Cutter.start(server.port, () => limit);
  const chat = chatOn(new DefaultChatTransport({ api: `http://${cutter.host}/ai-sdk`, headers: { "x-user": user } }));
  const client = clientTo(isAll ? cutter.host : hostOf());
  const end = followChat(chat, client);
  await until(() => client.state === "live");
  const asking = ask(chat, "text:300");
  await until(() => textOf(chat).includes("10é"));
  limit = 0;
  cutter.cut();
  // The last that it gets to know is that the request broke.
  await asking;
  limit = Infinity;
  await until(async () => chat.status === "ready" && textOf(chat) === (await server.emitted(user)));
  expect(chat.messages).toHaveLength(2);
  end();
  await cutter.stop();
});

test("what was erased is gone from the page", async () => {
  const chat = chatOn(transportTo());
  const client = clientTo();
  const end = followChat(chat, client);
  await until(() => client.state === "live");
  await ask(chat, "text:2");
  const url = `${server.url}/api/users/${user}/erase`;
  const headers = { authorization: "Bearer an-api-key-for-the-tests" };
  await fetch(url, { method: "POST", headers, body: "{}" });
  await until(() => chat.messages.length === 0);
  end();
});

describe("chats outside of components", () => {
  const made = (): { id: string } => ({ id: "c1" });

  test("in a page a chat is made once, until all are forgotten", () => {
    vi.stubGlobal("document", {});
    const chat = chatFor("c1", made);
    expect(chatFor("c1", made)).toBe(chat);
    expect(chatFor("c2", made)).not.toBe(chat);
    forgetChats();
    expect(chatFor("c1", made)).not.toBe(chat);
    vi.unstubAllGlobals();
  });

  test("on a server none is kept, for users share it", () => {
    expect(chatFor("c1", made)).not.toBe(chatFor("c1", made));
  });
});
