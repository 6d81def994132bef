import type { Position } from "./types.js";

/** A position, taken apart. Seqs are compared only within one epoch. */
export interface Place {
  epoch: string;
  seq: number;
}

/** The place that a text names, or `null` if it names none. */
export function parsePlace(position: unknown): Place | null {
  const [, epoch, seq] = /^(\w+):(\d+)$/.exec(position as string) ?? [];
  return epoch ? { epoch, seq: +(seq ?? 0) } : null;
}

/** The position of a place; `null` for none. */
export function formatPlace(place: Place | null): Position | null {
  return place && `${place.epoch}:${place.seq}`;
}
