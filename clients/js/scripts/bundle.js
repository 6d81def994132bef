// Builds the one-file client, which a page can load with <script type="module"> and which the server
// serves. `npm run build` writes it; the tests compare what is committed with what this would write.
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const ROOT = new URL("..", import.meta.url);
const PACKAGED = new URL("dist/catenary.js", ROOT);

/** The file among those that the server serves. */
export const SERVED = new URL("../../src/catenary/demo/static/catenary.js", ROOT);

/**
 * The text of the one-file client.
 *
 * @returns {Promise<string>}
 */
export async function bundle() {
  const result = await build({
    entryPoints: [fileURLToPath(new URL("src/index.ts", ROOT))],
    bundle: true,
    format: "esm",
    target: "es2022",
    minify: true,
    write: false,
    banner: { js: "/* catenary-client, Apache-2.0 */" },
  });
  return result.outputFiles[0]?.text ?? "";
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const text = await bundle();
  for (const target of [PACKAGED, SERVED]) writeFileSync(target, text);
}
