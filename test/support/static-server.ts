// A plain server of static files, as a static host is: no headers but the type, nothing but what lies in the folder.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";

const TYPES: Readonly<Record<string, string>> = {
  html: "text/html; charset=utf-8",
  css: "text/css",
  js: "text/javascript",
  mjs: "text/javascript",
  json: "application/json",
  wasm: "application/wasm",
};

/** Serves a folder below a path of localhost, on a free port. */
export async function serveFolder(folder: string, path = "/"): Promise<{ url: string; close(): Promise<void> }> {
  const server = createServer(async (request, response) => {
    const asked = decodeURIComponent(new URL(request.url!, "http://localhost").pathname);
    const name = asked.slice(path.length) || "index.html";
    const file = asked.startsWith(path) && !name.split("/").includes("..") ? join(folder, name) : undefined;
    const size = file === undefined ? undefined : await stat(file).catch(() => undefined);
    if (!file || !size?.isFile()) {
      response.writeHead(404, { "Content-Type": "text/html" }).end("<p>There is no such file.");
      return;
    }
    response.writeHead(200, {
      "Content-Type": TYPES[name.split(".").at(-1)!] ?? "application/octet-stream",
      "Content-Length": size.size,
    });
    if (request.method === "HEAD") response.end();
    else createReadStream(file).pipe(response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://localhost:${port}${path}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
