// Parts of a run's metrics.jsonl, while it grows. Node only.

import { type FileHandle, open } from "node:fs/promises";
import { metricsLineIn } from "./metrics-line.js";
import type { MetricsLine, MetricsPart } from "./protocol.js";

/** Most bytes of one part; a longer line is no line of a training. */
const PART_BYTES = 2 ** 21;
const TAIL_BYTES = 2 ** 18;
const LINE_BREAK = 0x0a;

/**
 * The whole lines behind a byte of the file, as many as fit into a part.
 *
 * @param from - `next` of the part before, or 0. Where no line begins there any more, the file was begun anew.
 */
export async function metricsPart(path: string, from: number): Promise<MetricsPart> {
  const handle = await open(path, "r").catch(() => undefined);
  if (!handle) return { lines: [], next: 0, isReset: from > 0 };
  try {
    const { size } = await handle.stat();
    const isReset = from > 0 && !(from <= size && (await byteAt(handle, from - 1)) === LINE_BREAK);
    return { ...(await wholeLines(handle, isReset ? 0 : from, size)), isReset };
  } finally {
    await handle.close();
  }
}

/** The next lines that tell of steps; what tells of none, and lines longer than a part, are passed over. */
async function wholeLines(handle: FileHandle, from: number, size: number): Promise<Omit<MetricsPart, "isReset">> {
  let next = from;
  let isTooLong = false;
  for (let at = from; ; ) {
    const bytes = await bytesOf(handle, at, Math.min(size - at, PART_BYTES));
    const end = (isTooLong ? bytes.indexOf(LINE_BREAK) : bytes.lastIndexOf(LINE_BREAK)) + 1;
    if (end === 0 && bytes.length < PART_BYTES) return { lines: [], next };
    if (end === 0) {
      isTooLong = true;
      at += bytes.length;
      continue;
    }
    const lines = isTooLong ? [] : linesOf(bytes.subarray(0, end));
    isTooLong = false;
    at += end;
    next = at;
    if (lines.length > 0) return { lines, next };
  }
}

/** The last line that tells of a step; undefined where there is none. */
export async function lastMetrics(path: string): Promise<MetricsLine | undefined> {
  const handle = await open(path, "r").catch(() => undefined);
  if (!handle) return undefined;
  try {
    const { size } = await handle.stat();
    const begin = Math.max(0, size - TAIL_BYTES);
    const bytes = await bytesOf(handle, begin, size - begin);
    // Before the first line break may be half a line, behind the last one another.
    const first = begin === 0 ? 0 : bytes.indexOf(LINE_BREAK) + 1;
    return linesOf(bytes.subarray(first, bytes.lastIndexOf(LINE_BREAK) + 1)).at(-1);
  } finally {
    await handle.close();
  }
}

async function byteAt(handle: FileHandle, position: number): Promise<number | undefined> {
  return (await bytesOf(handle, position, 1))[0];
}

async function bytesOf(handle: FileHandle, begin: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, begin);
  return buffer.subarray(0, bytesRead);
}

/** Lines that are none of a training are left out. */
const linesOf = (bytes: Buffer): MetricsLine[] =>
  bytes
    .toString("utf8")
    .split("\n")
    .flatMap((text) => metricsLineIn(text) ?? []);
