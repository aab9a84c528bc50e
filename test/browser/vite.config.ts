import { resolve } from "node:path";
import { defineConfig } from "vite";

// Threads need a page that is cross-origin isolated.
const headers = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

export default defineConfig({
  root: import.meta.dirname,
  publicDir: false,
  resolve: { alias: { fera: resolve(import.meta.dirname, "../../dist/web.js") } },
  build: { outDir: resolve(import.meta.dirname, "../../runs/browser"), emptyOutDir: true, target: "esnext" },
  worker: { format: "es" },
  optimizeDeps: { exclude: ["onnxruntime-web"] },
  server: { headers },
  preview: { headers, host: "127.0.0.1", port: 0, strictPort: false },
});
