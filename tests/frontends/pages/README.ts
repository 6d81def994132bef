// What clients/js/README.md says that a page has.
declare function show(runId: string | undefined, delta: string): void;
declare function reload(gap: import("catenary-client").Gap): void;
declare function apply(event: import("catenary-client").CatenaryEvent): Promise<void>;
/** That of the block before. */
declare const client: import("catenary-client").Client;
