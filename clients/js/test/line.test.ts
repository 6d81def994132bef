import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { Line, type LineOwner } from "../src/line.js";
import type { Socket } from "../src/options.js";

/** A socket that does what the test says. */
class Scripted implements Socket {
  static made: Scripted[] = [];
  onopen: Socket["onopen"] = null;
  onmessage: Socket["onmessage"] = null;
  onclose: Socket["onclose"] = null;
  onerror: Socket["onerror"] = null;
  readonly sent: string[] = [];
  isClosed = false;

  constructor(readonly url: string) {
    Scripted.made.push(this);
  }

  static get last(): Scripted {
    return Scripted.made.at(-1)!;
  }

  send(text: string): void {
    this.sent.push(text);
  }

  close(): void {
    this.isClosed = true;
  }

  says(data: string): void {
    this.onmessage?.({ data });
  }
}

class Owner implements LineOwner {
  readonly protocols = ["catenary.v1"];
  readonly told: string[] = [];
  wants = true;
  url = (): string => "ws://server/ws";
  opened = (): void => void this.told.push("opened");
  received = (text: string): void => void this.told.push(text);
  comesBack = (): boolean => this.wants;
  closed = (code: number): void => void this.told.push(`closed ${code}`);
}

let owner: Owner;
let line: Line;

beforeEach(async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "performance"] });
  Scripted.made = [];
  owner = new Owner();
  line = new Line({ WebSocket: Scripted, page: {} }, owner);
  await vi.advanceTimersByTimeAsync(0);
});

afterEach(() => {
  line.close();
  vi.useRealTimers();
});

const pass = (seconds: number): Promise<unknown> => vi.advanceTimersByTimeAsync(seconds * 1000);

test("a connection that is silent for 15 s is asked once, and stays as long as it answers", async () => {
  Scripted.last.onopen?.();
  await pass(14);
  expect(Scripted.last.sent).toEqual([]);
  for (let asked = 1; asked <= 5; asked++) {
    await pass(asked === 1 ? 3 : 17);
    expect(Scripted.last.sent).toHaveLength(asked);
    Scripted.last.says('{"type":"pong"}');
  }
  expect(Scripted.made).toHaveLength(1);
  expect(owner.told).toEqual(["opened"]);
});

test("one that does not answer within 22.5 s is given up, and another one is opened", async () => {
  Scripted.last.onopen?.();
  await pass(16 + 22);
  expect(Scripted.last.isClosed).toBe(false);
  await pass(3);
  expect(Scripted.made[0]?.isClosed).toBe(true);
  expect(Scripted.made).toHaveLength(2);
  Scripted.made[0]?.says("late");
  Scripted.last.onopen?.();
  expect(owner.told).toEqual(["opened", "opened"]);
});

test("one that brings messages is not asked", async () => {
  Scripted.last.onopen?.();
  for (let minute = 0; minute < 6; minute++) {
    await pass(10);
    Scripted.last.says("event");
  }
  expect(Scripted.last.sent).toEqual([]);
});

test("an attempt that is not answered is given up after 10 s", async () => {
  await pass(10);
  expect(Scripted.made).toHaveLength(1);
  await pass(2);
  expect(Scripted.made[0]?.isClosed).toBe(true);
  expect(Scripted.made).toHaveLength(2);
});

test.each([1008, 4501, 4999])("%i forbids to come back", async (code) => {
  Scripted.last.onopen?.();
  Scripted.last.onclose?.({ code, reason: "" });
  await pass(60);
  expect(owner.told).toEqual(["opened", `closed ${code}`]);
  expect(Scripted.made).toHaveLength(1);
});

test("a server that refuses is asked again within 10 s, however often it does", async () => {
  for (let attempt = 0; attempt < 12; attempt++) {
    Scripted.last.onclose?.({ code: 1006, reason: "" });
    await pass(10);
    expect(Scripted.made).toHaveLength(attempt + 2);
  }
});

test("an owner that wants no other connection gets none", async () => {
  Scripted.last.onopen?.();
  owner.wants = false;
  Scripted.last.onclose?.({ code: 1006, reason: "" });
  await pass(30);
  expect(Scripted.made).toHaveLength(1);
  expect(owner.told).toEqual(["opened", "closed 1006"]);
});
