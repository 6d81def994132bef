import type { Outbox } from "./types.js";

/**
 * An outbox that outlives a refresh: it is kept in the `sessionStorage` of the tab, under a name.
 *
 * Name it by the user, such as `outbox:user_123`, or one user's messages are sent as another's. Where
 * the browser keeps nothing, or no more, it is a plain `Map`.
 */
export function tabOutbox(name: string): Outbox {
  return new TabOutbox(name);
}

class TabOutbox extends Map<string, string> {
  readonly #name: string;

  constructor(name: string) {
    super();
    this.#name = name;
    for (const [id, text] of kept(name)) super.set(id, text);
  }

  override set(id: string, text: string): this {
    super.set(id, text);
    this.#keep();
    return this;
  }

  override delete(id: string): boolean {
    const isThere = super.delete(id);
    this.#keep();
    return isThere;
  }

  #keep(): void {
    try {
      sessionStorage.setItem(this.#name, JSON.stringify([...this]));
    } catch (error) {
      console.warn("what is sent does not outlive a refresh:", error);
    }
  }
}

function kept(name: string): [string, string][] {
  try {
    return JSON.parse(sessionStorage.getItem(name) ?? "[]") as [string, string][];
  } catch (error) {
    console.warn("nothing is left of what was sent before:", error);
    return [];
  }
}
