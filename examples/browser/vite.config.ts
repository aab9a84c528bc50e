import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { defineConfig } from "vite";

const fera = dirname(createRequire(import.meta.url).resolve("fera/package.json"));

// Threads need a page that is cross-origin isolated.
const headers = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

export default defineConfig({
  root: import.meta.dirname,
  // The model folder that fera carries becomes /icons.
  publicDir: join(fera, "assets"),
  build: { target: "esnext" },
  worker: { format: "es" },
  optimizeDeps: { exclude: ["fera", "onnxruntime-web"] },
  server: { headers },
  preview: { headers },
});
