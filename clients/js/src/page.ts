/** What a client needs to know of the page it lives in. */
export interface Page extends Partial<Listening> {
  document?: { readonly visibilityState: string } & Listening;
}

interface Listening {
  addEventListener(type: string, listener: () => void, options: { signal: AbortSignal }): void;
}

/**
 * Call `doubt` whenever the page has reason to doubt its connection, and `leave` when it is left.
 *
 * A page that slept, or whose network changed, holds a socket that may be dead without knowing it. A
 * page that is left may be kept by the browser and come back, which is one of the reasons to doubt.
 * Outside a browser this does nothing. `signal` ends it.
 */
export function watchPage(page: Page, doubt: () => void, leave: () => void, signal: AbortSignal): void {
  const { document } = page;
  const listen = (target: Partial<Listening> | undefined, type: string, listener: () => void) =>
    target?.addEventListener?.(type, listener, { signal });
  listen(document, "visibilitychange", () => document?.visibilityState === "visible" && doubt());
  listen(page, "online", doubt);
  listen(page, "pageshow", doubt);
  listen(page, "pagehide", leave);
}
