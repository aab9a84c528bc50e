// What this browser can compute with, and whether it is slow: found out by asking and measuring when the page opens.

import type { TabDevice } from "./messages.js";

/** The machine as a page sees it. */
export interface Machine {
  cores: number;
  /** Rounded down by browsers, and at most 8 GiB. */
  memoryBytes?: number;
  device: TabDevice;
  /** Of WebAssembly; 1 where the page is not isolated. */
  threads: number;
  /** Whether the small size is proposed. */
  isSlow: boolean;
  /** What is missing, and what would help; sentences. */
  notes: string[];
}

/** Milliseconds of {@link arithmeticTime} above which a core counts as slow. */
const SLOW_MILLISECONDS = 60;
const FEW_CORES = 4;
/** More gain nothing at these sizes. */
const MOST_THREADS = 8;

interface GpuAdapter {
  readonly isFallbackAdapter?: boolean;
  readonly info?: { readonly isFallbackAdapter?: boolean; readonly vendor?: string; readonly architecture?: string };
}

export async function measureMachine(): Promise<Machine> {
  const cores = navigator.hardwareConcurrency || 1;
  const { deviceMemory } = navigator as { deviceMemory?: number };
  const isolated = globalThis.crossOriginIsolated;
  const notes: string[] = [];
  const { gpu } = navigator as { gpu?: { requestAdapter(): Promise<GpuAdapter | null> } };
  const adapter = await gpu?.requestAdapter().catch(() => null);
  const isSoftware = adapter ? isSoftwareAdapter(adapter) : false;
  // A software adapter does on the same cores what WebAssembly does with less around it.
  const device: TabDevice = adapter && !isSoftware ? "webgpu" : "wasm";
  if (!adapter) notes.push("This browser offers no WebGPU: training runs on WebAssembly, on the processor.");
  else if (isSoftware) {
    notes.push(
      "WebGPU is there, but computed in software: training runs on WebAssembly, which is quicker then. " +
        "The option device chooses the other.",
    );
  }
  if (!isolated) {
    notes.push(
      "This page is not cross-origin isolated, so WebAssembly has one thread only. Serve it over HTTPS or from localhost, " +
        "with the headers Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp.",
    );
  }
  return {
    cores,
    ...(deviceMemory !== undefined && { memoryBytes: deviceMemory * 2 ** 30 }),
    device,
    threads: isolated ? Math.min(cores, MOST_THREADS) : 1,
    isSlow: device === "wasm" && (cores <= FEW_CORES || !isolated || arithmeticTime() > SLOW_MILLISECONDS),
    notes,
  };
}

/** Where training runs, for people. */
export function describeDevice({ device, threads }: Machine): string {
  if (device === "webgpu") return "WebGPU";
  return `WebAssembly, ${threads} ${threads === 1 ? "thread" : "threads"}`;
}

function isSoftwareAdapter({ isFallbackAdapter, info }: GpuAdapter): boolean {
  if (isFallbackAdapter || info?.isFallbackAdapter) return true;
  return /swiftshader|llvmpipe|lavapipe|softpipe/i.test(`${info?.vendor} ${info?.architecture}`);
}

/** Milliseconds that one core takes for 16 million multiplications and additions. */
function arithmeticTime(): number {
  const values = new Float32Array(4096).fill(1.0001);
  const startedAt = performance.now();
  for (let round = 0; round < 4096; round++) {
    for (let i = 0; i < values.length; i++) values[i] = values[i]! * 0.9999 + 0.0001;
  }
  return performance.now() - startedAt;
}
