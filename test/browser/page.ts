// Runs parity cases in a worker, where a page would run the library, one at a time; and what only a page can do with images.

import { ImageTensor } from "fera";
import type { CaseName, CaseRequest, CaseResult } from "./cases.js";

const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });

/** Called from the test through the browser's debugger. */
Object.assign(globalThis, { runCase, saveImage });

function runCase(name: CaseName, device: CaseRequest["device"], steps: number): Promise<CaseResult> {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }: MessageEvent<CaseResult>) => resolve(data);
    worker.onerror = (event) => reject(new Error(event.message));
    worker.postMessage({ name, device, steps } satisfies CaseRequest);
  });
}

/** Shows an image, and offers it as a download. @returns The canvas's own kind and size. */
async function saveImage(name: string): Promise<string> {
  const image = ImageTensor.fromPixels({ width: 3, height: 2, data: new Uint8Array(18).fill(200) });
  const canvas = image.toCanvas();
  await image.save(name);
  return `${canvas.constructor.name} ${canvas.width}×${canvas.height}`;
}
