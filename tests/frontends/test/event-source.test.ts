import { EventSource } from "eventsource";
import { afterAll, beforeAll, expect, test } from "vitest";

import { Cutter } from "./cutter.js";
import { newUser, randomOf, Server } from "./server.js";

let server: Server;

beforeAll(async () => {
  server = await Server.start();
});

afterAll(() => server.stop());

interface Native {
  type: string;
  seq?: number;
  data?: { delta?: string; part?: string };
}

test("EventSource: through cuts it resumes by itself, each event once", async () => {
  const seed = 20261125;
  console.log(`seed ${seed}`);
  const random = randomOf(seed);
  const cutter = await Cutter.start(server.port, () => 2500 + random() * 2500);
  const user = newUser();
  const messages = [{ id: "m1", role: "user", parts: [{ type: "text", text: "text:120 tool:3 burst:300 text:20" }] }];
  const asked = fetch(`${server.url}/ai-sdk`, {
    method: "POST",
    headers: { "x-user": user },
    body: JSON.stringify({ id: "chat", messages }),
  });
  const source = new EventSource(`http://${cutter.host}/sse?user=${user}`);
  const seqs: number[] = [];
  let text = "";
  await new Promise<void>((resolve) => {
    source.onmessage = ({ data }) => {
      const message = JSON.parse(String(data)) as Native;
      if (message.seq === undefined) return;
      seqs.push(message.seq);
      if (message.type === "agent_delta") text += message.data?.delta ?? "";
      if (message.type === "agent_completed") resolve();
    };
  });
  source.close();
  await (await asked).text();
  expect(text).toBe(await server.emitted(user));
  expect(seqs).toEqual([...new Set(seqs)].sort((one, other) => one - other));
  expect(cutter.cuts).toBeGreaterThan(1);
  await cutter.stop();
});
