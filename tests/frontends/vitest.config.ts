import { defineConfig } from "vitest/config";

// One file after the other: each has a server of its own, and the machine may be small.
export default defineConfig({ test: { testTimeout: 20_000, hookTimeout: 20_000, fileParallelism: false } });
