// The studio's page: one build for `fera studio`, which serves it, and for static hosts, where it trains by itself.
// ONNX Runtime's files and the embedded model are not part of it: they lie beside it, under ort/ and model/.

import { createReadStream, existsSync, readFileSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { type Connect, defaultClientConditions, defineConfig, type Plugin } from "vite";

const root = import.meta.dirname;
const ortFolder = dirname(fileURLToPath(import.meta.resolve("onnxruntime-web")));

const { version } = JSON.parse(readFileSync(resolve(root, "../package.json"), "utf8")) as { version: string };

// Threads need a page that is cross-origin isolated.
const headers = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

// ONNX Runtime's own program, so that it can be told from the page's.
const output = {
  codeSplitting: { groups: [{ name: "onnxruntime", test: /node_modules\/onnxruntime-(web|common)/ }] },
};

export default defineConfig({
  root,
  base: "./",
  publicDir: join(root, "public"),
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  plugins: [neighbours({ "/ort/": ortFolder, "/model/": resolve(root, "../assets/icons") })],
  resolve: {
    // Without its WebAssembly inside: that lies beside the page.
    conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions],
    alias: { react: "preact/compat", "react-dom": "preact/compat", re2js: join(root, "src/tab/worker/patterns.ts") },
  },
  build: { outDir: resolve(root, "../dist/studio-page"), emptyOutDir: true, target: "esnext", assetsInlineLimit: 0 },
  define: { __FERA_VERSION__: JSON.stringify(version) },
  worker: { format: "es", rolldownOptions: { output } },
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
