// Builds the page into the folder given (default: where Go embeds it from): minified, split into chunks, each file compressed. The file "sources" there
// says which sources it was built from, so that a build without changes needs no Node.js.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, "../internal/dashboard/dist");

const result = await build({
  absWorkingDir: here,
  entryPoints: ["src/main.tsx"],
  entryNames: "app-[hash]",
  chunkNames: "[name]-[hash]",
  assetNames: "[name]-[hash]",
  outdir: "out",
  write: false,
  metafile: true,
  bundle: true,
  splitting: true,
  format: "esm",
  minify: true,
  legalComments: "none",
  target: ["chrome123", "firefox120", "safari17.5"],
  jsx: "automatic",
  jsxImportSource: "preact",
  logLevel: "warning",
});

const named = (pattern) => result.outputFiles.map((f) => f.path.split("/").pop()).find((name) => pattern.test(name));
const page = readFileSync(join(here, "src/index.html"), "utf8")
  .replace("APP_JS", named(/^app-.*\.js$/))
  .replace("APP_CSS", named(/^app-.*\.css$/));

// What others wrote is named with its license.
const packages = JSON.parse(readFileSync(join(here, "package-lock.json"), "utf8")).packages;
const used = new Set(Object.keys(result.metafile.inputs).map((p) => /^(node_modules\/(?:@[^/]+\/)?[^/]+)/.exec(p)?.[1]).filter(Boolean));
const licenses = [...used].sort().map((path) => {
  const text = readdirSync(join(here, path)).find((f) => /^licen[cs]e/i.test(f));
  return `${path.slice("node_modules/".length)} ${packages[path].version}\n\n${text ? readFileSync(join(here, path, text), "utf8") : packages[path].license}`;
});

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
let total = 0;
function put(name, contents) {
  const packed = gzipSync(contents, { level: 9 });
  total += packed.length;
  writeFileSync(join(out, name + ".gz"), packed);
}
for (const file of result.outputFiles) put(file.path.split("/").pop(), file.contents);
put("index.html", page);
put("licenses.txt", licenses.join("\n\n----\n\n"));
writeFileSync(join(out, "sources"), digest() + "\n");
console.log(`the UI: ${result.outputFiles.length + 2} files, ${(total / 1024).toFixed(0)} KB compressed`);

// digest of all sources, in the order of their names; internal/dashboard's tests compute the same.
function digest() {
  const files = ["build.mjs", "package.json", "package-lock.json", "tsconfig.json"];
  for (const f of readdirSync(join(here, "src"), { recursive: true, withFileTypes: true })) {
    if (f.isFile()) files.push(join(f.parentPath ?? f.path, f.name).slice(here.length + 1));
  }
  const sum = createHash("sha256");
  for (const f of files.sort()) sum.update(`${f}\0`).update(readFileSync(join(here, f))).update("\0");
  return sum.digest("hex");
}
