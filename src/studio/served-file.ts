// Files as answers. Node only.

import { createReadStream } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, extname, join, relative, sep } from "node:path";
import { Readable } from "node:stream";
import { StudioError } from "./studio-error.js";

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".jsonl": "application/jsonl",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".jpg": "image/jpeg",
  ".webp": "image/webp",
  ".ico": "image/x-icon",
  ".woff2": "font/woff2",
  ".wasm": "application/wasm",
  ".webmanifest": "application/manifest+json",
};

/** What a browser shows by itself without running anything. */
const SHOWN = new Set([".png", ".jpg", ".webp", ".json", ".jsonl"]);

/** The page's files, by their addresses: what is not among them is not served. */
export async function pageFiles(folder: string): Promise<ReadonlyMap<string, string>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return new Map(files.map((file) => [`/${relative(folder, file).split(sep).join("/")}`, file]));
}

/** A file of the page. */
export function servePageFile(path: string): Promise<Response> {
  // Names of built files hold a hash of what is in them.
  const isHashed = /-[\w-]{8}\.\w+$/.test(basename(path));
  return fileResponse(path, TYPES[extname(path)] ?? "application/octet-stream", {
    "Cache-Control": isHashed ? "public, max-age=31536000, immutable" : "no-cache",
  });
}

/** A file of a user: pictures are shown, anything else is saved, and nothing runs. */
export function serveUserFile(path: string): Promise<Response> {
  const ending = extname(path).toLowerCase();
  const isShown = SHOWN.has(ending);
  return fileResponse(path, isShown ? TYPES[ending]! : "application/octet-stream", {
    "Cache-Control": "no-cache",
    ...(!isShown && { "Content-Disposition": `attachment; filename*=UTF-8''${encodeURIComponent(basename(path))}` }),
  });
}

async function fileResponse(path: string, type: string, headers: Record<string, string>): Promise<Response> {
  const known = await stat(path).catch(() => undefined);
  if (!known?.isFile()) throw new StudioError(404, "There is no such file.");
  const content = createReadStream(path, { end: Math.max(0, known.size - 1) });
  const body = known.size === 0 ? null : (Readable.toWeb(content) as ReadableStream<Uint8Array>);
  if (body === null) content.destroy();
  return new Response(body, { headers: { ...headers, "Content-Type": type, "Content-Length": String(known.size) } });
}
