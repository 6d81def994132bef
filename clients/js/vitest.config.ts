import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const REACT_18 = { react: at("test/react-18/node_modules/react"), "react-dom": at("test/react-18/node_modules/react-dom") };
const react = { include: ["test/react/*.test.tsx"], environment: "jsdom" };

// The machine may be small, and several files start a server of their own.
export default defineConfig({
  test: {
    testTimeout: 20_000,
    hookTimeout: 20_000,
    maxWorkers: 2,
    projects: [
      { extends: true, test: { name: "client", include: ["test/*.test.ts"] } },
      { extends: true, test: { name: "react 19", ...react } },
      { extends: true, test: { name: "react 18", ...react }, resolve: { alias: REACT_18 } },
    ],
  },
});
