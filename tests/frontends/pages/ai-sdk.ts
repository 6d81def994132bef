// What docs/how-to/ai-sdk.md says that a page has.
declare const chatId: string;
declare function token(): string;
declare function freshToken(): Promise<string>;
/** That of "Over one WebSocket". */
declare const transport: import("ai").WebSocketChatTransport<import("ai").UIMessage>;
/** A part of a message that waits for an approval. */
declare const part: Extract<import("ai").DynamicToolUIPart, { state: "approval-requested" }>;
