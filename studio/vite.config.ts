// The studio's page: one build for `fera studio`, which serves it, and for static hosts, where it trains by itself.
// ONNX Runtime's files and the embedded model are not part of it: they lie beside it, under ort/ and model/.

import { createReadStream, existsSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { type Connect, defineConfig, type Plugin } from "vite";

const root = import.meta.dirname;
const ortFolder = dirname(fileURLToPath(import.meta.resolve("onnxruntime-web")));

// Threads need a page that is cross-origin isolated.
const headers = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

export default defineConfig({
  root,
  base: "./",
  publicDir: join(root, "public"),
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  plugins: [neighbours({ "/ort/": ortFolder, "/model/": resolve(root, "../assets/icons") })],
  resolve: { alias: { react: "preact/compat", "react-dom": "preact/compat" } },
  build: { outDir: resolve(root, "../dist/studio-page"), emptyOutDir: true, target: "esnext", assetsInlineLimit: 0 },
  worker: { format: "es" },
  optimizeDeps: { exclude: ["onnxruntime-web"] },
  server: { headers, host: "127.0.0.1" },
  preview: { headers, host: "127.0.0.1" },
});

const TYPES: Readonly<Record<string, string>> = {
  json: "application/json",
  mjs: "text/javascript",
  js: "text/javascript",
  wasm: "application/wasm",
};

/** While developing, what a server or a static host has beside the page. */
function neighbours(folders: Readonly<Record<string, string>>): Plugin {
  const serve: Connect.NextHandleFunction = (request, response, next) => {
    const path = decodeURIComponent((request.url ?? "").split("?")[0]!);
    const [prefix, folder] = Object.entries(folders).find(([start]) => path.startsWith(start)) ?? [];
    const file = folder && join(folder, path.slice(prefix!.length));
    if (!file?.startsWith(folder!) || !existsSync(file) || !statSync(file).isFile()) return next();
    response.setHeader("Content-Type", TYPES[file.split(".").at(-1)!] ?? "application/octet-stream");
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    createReadStream(file).pipe(response);
  };
  return {
    name: "neighbours",
    configureServer: ({ middlewares }) => void middlewares.use(serve),
    configurePreviewServer: ({ middlewares }) => void middlewares.use(serve),
  };
}
