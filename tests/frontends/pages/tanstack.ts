// What docs/how-to/tanstack.md says that a page has.
declare const chatId: string;
