// What docs/how-to/clients.md says that a page has.
declare const token: string;
declare function show(runId: string | undefined, delta: string): void;
declare function handle(message: { type: string }): void;
