// Builds the one-file clients, which a page can load with <script type="module"> and which the server
// serves. `npm run build` writes them; the tests compare what is committed with what this would write.
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const ROOT = new URL("..", import.meta.url);
const PACKAGED = new URL("dist/", ROOT);

/** Where the server has the files that it serves. */
export const SERVED = new URL("../../src/catenary/demo/static/", ROOT);

/** The files, and what each is made of. The second has all of the first in it. */
export const FILES = { "catenary.js": "src/index.ts", "catenary-threads.js": "src/threads.ts" };

/**
 * The text of a one-file client.
 *
 * @param {string} source
 * @returns {Promise<string>}
 */
export async function bundle(source) {
  const result = await build({
    entryPoints: [fileURLToPath(new URL(source, ROOT))],
    bundle: true,
    packages: "external",
    format: "esm",
    target: "es2022",
    minify: true,
    write: false,
    banner: { js: "/* catenary-client, Apache-2.0 */" },
  });
  return result.outputFiles[0]?.text ?? "";
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const folder = process.argv[2] === "served" ? SERVED : PACKAGED;
  for (const [name, source] of Object.entries(FILES)) writeFileSync(new URL(name, folder), await bundle(source));
}
