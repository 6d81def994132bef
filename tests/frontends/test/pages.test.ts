import { execFile } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { beforeAll, describe, expect, test } from "vitest";

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const CLIENT = at("../../../clients/js/");
const HOW_TO = at("../../../docs/how-to/");
const MODULES = at("../node_modules/");
const TSC = join(MODULES, "typescript/bin/tsc");
/** Where the blocks are written: here, so that they find the packages. */
const BUILD = at("../build/");

interface Block {
  language: string;
  line: number;
  code: string;
}

function blocksOf(page: string): Block[] {
  const text = readFileSync(page, "utf8");
  return [...text.matchAll(/^```(tsx?|jsx?)\n(.*?)^```/gms)].map(({ 1: language = "", 2: code = "", index }) => ({
    language,
    line: text.slice(0, index).split("\n").length,
    code,
  }));
}

/** The client's own source, by the names under which it is published; what it needs comes from here. */
function modules(): Record<string, string[]> {
  const { exports } = JSON.parse(readFileSync(join(CLIENT, "package.json"), "utf8")) as {
    exports: Record<string, { types?: string }>;
  };
  const paths: Record<string, string[]> = { "/static/catenary.js": [join(CLIENT, "src/index.ts")] };
  for (const [name, { types }] of Object.entries(exports)) {
    if (types === undefined) continue;
    paths[join("catenary-client", name)] = [join(CLIENT, "src", `${basename(types, ".d.ts")}.ts`)];
  }
  for (const name of ["ai", "@ag-ui/client", "rxjs"]) paths[name] = [join(MODULES, name)];
  paths.react = [join(MODULES, "@types/react")];
  return paths;
}

/** Check the blocks of a page, each as a module of its own, and return what is wrong. */
async function check(page: string): Promise<string> {
  const name = basename(page, ".md");
  const folder = join(BUILD, name);
  mkdirSync(folder, { recursive: true });
  // A page without one takes nothing for granted.
  const preamble = at(`../pages/${name}.ts`);
  if (existsSync(preamble)) copyFileSync(preamble, join(folder, "preamble.ts"));
  for (const { language, line, code } of blocksOf(page)) {
    // The lines of a block have the numbers that they have in the page.
    writeFileSync(join(folder, `at-${line}.${language}`), `${"\n".repeat(line)}${code}export {};\n`);
  }
  const compilerOptions = {
    target: "es2022",
    lib: ["es2023", "dom", "dom.iterable", "dom.asynciterable"],
    module: "esnext",
    moduleResolution: "bundler",
    jsx: "react-jsx",
    strict: true,
    allowJs: true,
    checkJs: true,
    noEmit: true,
    skipLibCheck: true,
    types: [],
    paths: modules(),
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions }));
  const compiling = promisify(execFile)(process.execPath, [TSC, "-p", folder]);
  return compiling.then(
    () => "",
    (error: { stdout: string; message: string }) => error.stdout || error.message,
  );
}

const PAGES = [
  join(CLIENT, "README.md"),
  ...readdirSync(HOW_TO)
    .map((name) => join(HOW_TO, name))
    .filter((page) => page.endsWith(".md") && blocksOf(page).length > 0),
];

beforeAll(() => rmSync(BUILD, { recursive: true, force: true }));

describe("the TypeScript and JavaScript of a page fits the packages that it uses", () => {
  test.each(PAGES.map((page) => [basename(page), page]))("%s", async (_, page) => {
    expect(await check(page)).toBe("");
  });
});

test("the pages about front ends are among those that are checked", () => {
  const names = ["README.md", "ag-ui.md", "ai-sdk.md", "clients.md", "javascript.md", "tanstack.md"];
  expect(PAGES.map((page) => basename(page))).toEqual(expect.arrayContaining(names));
});
