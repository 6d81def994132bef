// What docs/how-to/javascript.md says that a page has.
type Folded = import("catenary-client/threads").Thread;
declare function show(messages: Folded["messages"]): void;
/** That of "Show a conversation". */
declare const threads: import("catenary-client/threads").Threads;
declare const question: Folded["questions"][number];
