// The library's home in the page: ONNX Runtime blocks its thread while it computes.

import { configureWebRuntime } from "fera";
import mjs from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.mjs?url";
import wasm from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url";
import { type CaseRequest, type CaseResult, cases } from "./cases.js";

configureWebRuntime({ files: { wasm, mjs }, threads: 2 });

self.onmessage = async ({ data: { name, device, steps } }: MessageEvent<CaseRequest>) => {
  const start = performance.now();
  let result: CaseResult;
  try {
    const checks = await cases[name](device, steps);
    result = { checks, isolated: self.crossOriginIsolated, seconds: (performance.now() - start) / 1000 };
  } catch (error) {
    result = { checks: [], isolated: self.crossOriginIsolated, seconds: 0, error: (error as Error).stack };
  }
  self.postMessage(result);
};
