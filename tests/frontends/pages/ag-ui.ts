// What docs/how-to/ag-ui.md says that a page has.
declare const chatId: string;
declare const token: string;
declare function freshToken(): Promise<string>;
/** That of the blocks before. */
declare const agent: import("@ag-ui/client").AbstractAgent;
