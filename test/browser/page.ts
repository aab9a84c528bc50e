// Runs parity cases in a worker, where a page would run the library, one at a time.

import type { CaseName, CaseRequest, CaseResult } from "./cases.js";

const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });

/** Called from the test through the browser's debugger. */
(globalThis as unknown as { runCase: typeof runCase }).runCase = runCase;

function runCase(name: CaseName, device: CaseRequest["device"]): Promise<CaseResult> {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }: MessageEvent<CaseResult>) => resolve(data);
    worker.onerror = (event) => reject(new Error(event.message));
    worker.postMessage({ name, device } satisfies CaseRequest);
  });
}
