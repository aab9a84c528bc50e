// `fera studio --export`: the page as a folder of static files that trains by itself, in the tab of its reader.

import { copyFile, mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { ConfigError } from "../errors.js";
import { isObject } from "../storage/json.js";

/** The package's own folder, from src/studio/ as from dist/studio/. */
const PACKAGE = fileURLToPath(new URL("../../", import.meta.url));
const PAGE = join(PACKAGE, "dist/studio-page");
const MODEL = join(PACKAGE, "assets/icons");

/** ONNX Runtime's files that the page loads, of the many that its package has. */
const RUNTIME_FILES = ["ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"];

/** Tells a folder that was exported before, and what of it is the site's. */
const MARKER = "fera-studio.json";

/** What was written. */
export interface ExportedSite {
  files: string[];
  sizeBytes: number;
}

/**
 * Writes the site: the page, ONNX Runtime under `ort/`, the embedded model under `model/`. All addresses are relative, so that
 * it works under any path.
 *
 * @param folder - New, empty, or exported before; what else lies in one exported before stays.
 * @throws {ConfigError} If the folder holds something else, or the page or ONNX Runtime is not installed.
 */
export async function exportSite(folder: string): Promise<ExportedSite> {
  const before = await filesExportedBefore(folder);
  const sources = new Map<string, string>();
  for (const file of await filesBelow(PAGE)) sources.set(file, join(PAGE, file));
  if (!sources.has("index.html")) {
    throw new ConfigError(`studio: the page is not built (no ${join(PAGE, "index.html")}). Run npm run build.`);
  }
  const runtime = runtimeFolder();
  for (const file of RUNTIME_FILES) sources.set(`ort/${file}`, join(runtime, file));
  // Pictures and words about the model are for those who read its folder.
  const ofModel = (await filesBelow(MODEL)).filter((file) => file.includes("/") || file === "model_index.json");
  for (const file of ofModel) sources.set(`model/${file}`, join(MODEL, file));

  const files = [...sources.keys()].sort();
  await mkdir(folder, { recursive: true });
  // First, so that a folder that was left half written is known for the site's.
  const marker = { about: "Written by fera studio --export, which may replace these files.", files };
  const all = [...new Set([...before, ...files])].sort();
  await writeFile(join(folder, MARKER), `${JSON.stringify({ ...marker, files: all }, undefined, 2)}\n`);
  for (const file of before) if (!sources.has(file)) await rm(join(folder, file), { force: true });
  let sizeBytes = 0;
  for (const [file, source] of sources) {
    const target = join(folder, file);
    await mkdir(dirname(target), { recursive: true });
    await copyFile(source, target);
    sizeBytes += (await stat(target)).size;
  }
  await writeFile(join(folder, MARKER), `${JSON.stringify(marker, undefined, 2)}\n`);
  return { files, sizeBytes };
}

/** How to put the site where others can open it, for people. */
export const HOSTING_HINT =
  "Put the folder on any static host: GitHub Pages, an object store, nginx. It must be served over HTTPS (or from localhost), " +
  "with .mjs as text/javascript and .wasm as application/wasm. To look at it here: npx http-server FOLDER, or " +
  "python3 -m http.server --directory FOLDER. A service worker adds the headers that threads need; hosts that let you set " +
  "headers do better with Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp.";

/** @throws {ConfigError} If the folder holds something, and was not exported before. */
async function filesExportedBefore(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch((cause: NodeJS.ErrnoException): string[] => {
    if (cause.code === "ENOENT") return [];
    throw new ConfigError(`studio: ${folder} cannot be exported to: ${cause.message}.`, { cause });
  });
  if (names.length === 0) return [];
  if (!names.includes(MARKER)) {
    throw new ConfigError(
      `studio: ${folder} holds other files (${names.slice(0, 3).join(", ")}${names.length > 3 ? ", …" : ""}), ` +
        "and is not an exported site. Name a new or an empty folder.",
    );
  }
  const marker: unknown = await readFile(join(folder, MARKER), "utf8")
    .then(JSON.parse)
    .catch(() => undefined);
  const files = isObject(marker) && Array.isArray(marker.files) ? marker.files : undefined;
  if (files?.every((file) => typeof file === "string" && isInside(file))) return files;
  throw new ConfigError(`studio: ${join(folder, MARKER)} is damaged. Delete it with the site, or name another folder.`);
}

/** Whether a path leads to a place in the folder, whatever a damaged list says. */
const isInside = (file: string): boolean =>
  file !== "" && !file.split("/").some((part) => part === "" || part === "." || part === "..") && !/[\\:]/.test(file);

/** Paths with forward slashes. */
async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true, recursive: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) =>
      join(entry.parentPath, entry.name)
        .slice(folder.length + 1)
        .replaceAll("\\", "/"),
    );
}

/** @throws {ConfigError} With the command that installs it. */
function runtimeFolder(): string {
  try {
    return dirname(fileURLToPath(import.meta.resolve("onnxruntime-web")));
  } catch (cause) {
    throw new ConfigError(
      "studio: --export needs ONNX Runtime for browsers, which is not installed. Run npm install onnxruntime-web.",
      { cause },
    );
  }
}
