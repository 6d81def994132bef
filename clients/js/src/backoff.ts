/**
 * The seconds to wait before the next attempt.
 *
 * `n` counts the waits since a connection last held. `draw` is a random number from 0 to 1, so that
 * the clients of a server that restarts come back spread out over the whole range.
 */
export function backoff(n: number, draw: number): number {
  return draw * (n ? Math.min(10, 0.25 * 2 ** n) : 0.1);
}
