export { connect, type Client } from "./client.js";
export type { Listeners, Options, Socket } from "./options.js";
export type { Page } from "./page.js";
export { CatenaryError } from "./types.js";
export type {
  After,
  CatenaryEvent,
  Control,
  CustomEvent,
  EventData,
  Gap,
  Outbox,
  Position,
  PositionStorage,
  State,
  Stats,
} from "./types.js";
