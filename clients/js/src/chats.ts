const CHATS = new Map<string, unknown>();

/**
 * The chat with this id: `make` makes it the first time, and later the same one comes back.
 *
 * Give it to `useChat({ chat })`. A chat that a component makes itself is stopped when the component
 * goes, and with it the agent; one that is kept here goes on. On a server, where users share the
 * module, nothing is kept.
 */
export function chatFor<CHAT>(id: string, make: () => CHAT): CHAT {
  if (!("document" in globalThis)) return make();
  if (!CHATS.has(id)) CHATS.set(id, make());
  return CHATS.get(id) as CHAT;
}

/** Forget all chats, when another user signs in. What their agents do goes on. */
export function forgetChats(): void {
  CHATS.clear();
}
