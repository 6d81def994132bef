import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";

const KEY = "an-api-key-for-the-tests";
const VENV = join(import.meta.dirname, "../../../.venv/bin/python");

/** A run as the server knows it: what the agent emitted. */
export interface Run {
  run_id: string;
  status: string;
  messages?: { part?: string; text?: string }[];
  tools?: { tool_call_id: string; tool_output?: unknown }[];
  questions?: { request_id: string; by?: string }[];
  continues_run_id?: string;
  parent_run_id?: string;
}

/** A Catenary server in a process of its own. */
export class Server {
  private constructor(
    readonly url: string,
    readonly process: ChildProcess,
  ) {}

  /** `port` 0 chooses a free one. */
  static async start(port = 0, env: Record<string, string> = {}): Promise<Server> {
    const python = process.env["CATENARY_PYTHON"] ?? (existsSync(VENV) ? VENV : "python3");
    const app = join(import.meta.dirname, "../app.py");
    const child = spawn(python, [app, String(port)], {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, ...env },
    });
    const ended = once(child, "exit").then(() => {
      throw new Error("the server did not start; what it printed is above");
    });
    const [line] = (await Promise.race([once(child.stdout!, "data"), ended])) as [Buffer];
    ended.catch(() => undefined);
    const server = new Server(String(line).trim(), child);
    while (!(await fetch(`${server.url}/readyz`)).ok) await new Promise((resolve) => setTimeout(resolve, 20));
    return server;
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    if (this.process.exitCode !== null) return;
    this.process.kill(signal);
    await once(this.process, "exit");
  }

  /** The runs of a user, as the log has them. */
  async runs(user: string): Promise<Run[]> {
    const response = await fetch(`${this.url}/api/users/${user}/runs`, {
      headers: { authorization: `Bearer ${KEY}` },
    });
    return ((await response.json()) as { runs: Run[] }).runs;
  }

  /** All text that a user's agents emitted, sub-agents' aside. */
  async emitted(user: string, part = "text"): Promise<string> {
    const runs = (await this.runs(user)).filter((run) => !run.parent_run_id);
    return runs.map((run) => said(run, part)).join("");
  }

  /** Wait until the log says so. */
  async until(user: string, holds: (runs: Run[]) => boolean): Promise<Run[]> {
    for (;;) {
      const runs = await this.runs(user);
      if (holds(runs)) return runs;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

function said(run: Run, part: string): string {
  const messages = run.messages ?? [];
  return messages
    .filter((message) => (message.part ?? "text") === part)
    .map((message) => message.text ?? "")
    .join("");
}

let users = 0;

/** A user that nobody else has. */
export function newUser(): string {
  return `user_${process.pid}_${++users}`;
}

/** Numbers from 0 to 1, the same for a seed. */
export function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
