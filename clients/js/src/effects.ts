import type { After, CatenaryError, CatenaryEvent, Control, Gap } from "./types.js";

/** Why the client gave up a connection by itself. */
export type GaveUp = "silence" | "probe" | "deadline" | "fault" | "dropped" | "stopped";

/** How a command ended: with the server's `ack`, or with an error. */
export type Outcome = { ack: Control; error?: undefined } | { ack?: undefined; error: CatenaryError };

/** What the owner of a session must do, in order. */
export type Effect =
  | { kind: "connect"; after: After | null; threadIds: readonly string[] }
  | { kind: "disconnect"; reason: GaveUp }
  | { kind: "send"; text: string }
  | { kind: "deliver"; item: CatenaryEvent | Gap }
  | ({ kind: "outcome"; id: string } & Outcome)
  | { kind: "control"; message: Control }
  | { kind: "error"; error: CatenaryError };
