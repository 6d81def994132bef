"use client";

import {
  createContext,
  createElement,
  useCallback,
  useContext,
  useEffect,
  useMemo,
  useState,
  useSyncExternalStore,
  type ReactNode,
} from "react";

import { LOADING, Threads, type Thread } from "./threads.js";
import type { Options } from "./options.js";
import { CatenaryError } from "./types.js";

export { tabOutbox, Threads } from "./threads.js";
export type { Options } from "./options.js";
export type * from "./run-state.js";
export type { AgentMessage, Message, Thread, ThreadStatus, UserMessage } from "./threads.js";

/** `null` until the page is there; `undefined` without a provider. */
const Context = createContext<Threads | null | undefined>(undefined);

/** The options of `connect`; or `threads` that the application made itself, and closes itself. */
export type CatenaryProviderProps = { children?: ReactNode } & (Options | { threads: Threads });

/**
 * Connects the components below it, for as long as it is mounted.
 *
 * The options are read once: give it a `key`, such as the user's id, to connect anew. On a server it
 * connects to nothing, and the hooks below it show that they are loading.
 */
export function CatenaryProvider({ children, ...props }: CatenaryProviderProps): ReactNode {
  const given = "threads" in props ? props.threads : null;
  const [first] = useState(props);
  const [opened, setOpened] = useState<Threads | null>(null);
  useEffect(() => {
    if ("threads" in first) return;
    const threads = new Threads(first);
    setOpened(threads);
    return () => threads.close();
  }, [first]);
  return createElement(Context.Provider, { value: given ?? opened }, children);
}

/**
 * The conversations of the provider above; `null` on a server, and before the page is there.
 *
 * For what `useThread` does not do: other events, other commands.
 */
export function useThreads(): Threads | null {
  const threads = useContext(Context);
  if (threads === undefined) throw new CatenaryError("usage", "there is no <CatenaryProvider> above");
  return threads;
}

/** What a component shows of a conversation, and what it can do. */
export interface UseThread extends Thread {
  /** Send a message of the user, which is shown at once. It need not be awaited; see `Threads.send`. */
  send(content: unknown, data?: Record<string, unknown>): Promise<unknown>;
  /** Ask for the end of what is at work. What was said stays. */
  stop(reason?: string): Promise<void>;
  /** Answer what an agent asked. */
  answer(requestId: string, answer: unknown): Promise<unknown>;
}

/**
 * One conversation: its messages, its runs, and what it waits for.
 *
 * Renders at most 60 times a second.
 */
export function useThread(threadId: string): UseThread {
  const threads = useThreads();
  const subscribe = useCallback(
    (listener: () => void) => threads?.subscribe(threadId, listener) ?? (() => undefined),
    [threads, threadId],
  );
  const thread = useSyncExternalStore(
    subscribe,
    () => threads?.get(threadId) ?? LOADING,
    () => LOADING,
  );
  const actions = useMemo(() => actionsOf(threads, threadId), [threads, threadId]);
  return useMemo(() => ({ ...thread, ...actions }), [thread, actions]);
}

function actionsOf(threads: Threads | null, threadId: string): Pick<UseThread, "send" | "stop" | "answer"> {
  const there = async (): Promise<Threads> => {
    if (!threads) throw new CatenaryError("usage", "there is no connection yet");
    return threads;
  };
  return {
    send: (content, data) => (threads ? threads.send(threadId, content, data) : there()),
    stop: async (reason) => (await there()).stop(threadId, reason),
    answer: async (requestId, answer) => (await there()).answer(requestId, answer),
  };
}
