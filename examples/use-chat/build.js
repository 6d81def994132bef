import { cpSync, rmSync } from "node:fs";
import { build } from "esbuild";

rmSync("dist", { recursive: true, force: true });
await build({
  entryPoints: ["page/page.tsx"],
  outdir: "dist",
  bundle: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  minify: true,
  // `catenary-client` is a link here, and shall not bring a React of its own.
  preserveSymlinks: true,
  define: { "process.env.NODE_ENV": '"production"' },
});
for (const name of ["index.html", "style.css"]) cpSync(`page/${name}`, `dist/${name}`);
