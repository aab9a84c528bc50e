import { appendFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { lastMetrics, metricsPart } from "./metrics-part.js";
import { measuredIn } from "./predictions.js";

const line = (step: number) => `${JSON.stringify({ step, loss: 1 / step })}\n`;

describe("parts of a run's metrics", () => {
  let dir: string;
  let path: string;
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "fera-metrics-"));
    path = join(dir, "metrics.jsonl");
  });
  afterAll(() => rm(dir, { recursive: true }));

  it("pass over what is no line of a training, however long", async () => {
    const damaged = join(dir, "damaged.jsonl");
    const long = `{"step":1,"loss":"${"x".repeat(5_000_000)}"}\n`;
    await writeFile(damaged, `${long}${"nonsense\n".repeat(300_000)}${line(2)}${long}{"half`);
    const first = await metricsPart(damaged, 0);
    expect(first.lines.map(({ step }) => step)).toEqual([2]);
    const second = await metricsPart(damaged, first.next);
    expect([second.lines, second.isReset]).toEqual([[], false]);
    expect(second.next).toBeGreaterThan(first.next + 5_000_000);
  });

  it("go on where the last one ended, and leave half a line for the next", async () => {
    expect(await metricsPart(path, 0)).toEqual({ lines: [], next: 0, isReset: false });
    await writeFile(path, `${line(1)}${line(2)}{"step":3,`);
    const first = await metricsPart(path, 0);
    expect(first.lines.map(({ step }) => step)).toEqual([1, 2]);
    await appendFile(path, `"loss":0.3}\n`);
    const second = await metricsPart(path, first.next);
    expect([second.lines, second.isReset]).toEqual([[{ step: 3, loss: 0.3 }], false]);
    expect(await metricsPart(path, second.next)).toEqual({ lines: [], next: second.next, isReset: false });
    expect(await lastMetrics(path)).toEqual({ step: 3, loss: 0.3 });
  });

  it("say where the file was begun anew, and skip what is no line of a training", async () => {
    const { next } = await metricsPart(path, 0);
    await writeFile(path, `${line(1)}null\nnonsense\n`);
    expect(await metricsPart(path, next)).toEqual({
      ...{ lines: [{ step: 1, loss: 1 }], isReset: true },
      next: `${line(1)}null\nnonsense\n`.length,
    });
  });

  it("are bounded, and read on to the end", async () => {
    const padded = (step: number) =>
      `${JSON.stringify({ step, loss: 1, sampleLosses: Array(2000).fill(0.123456789) })}\n`;
    await writeFile(path, Array.from({ length: 150 }, (_, i) => padded(i + 1)).join(""));
    const steps: number[] = [];
    let from = 0;
    let parts = 0;
    for (; ; parts++) {
      const part = await metricsPart(path, from);
      if (part.lines.length === 0) break;
      steps.push(...part.lines.map(({ step }) => step));
      from = part.next;
    }
    expect(parts).toBeGreaterThan(1);
    expect(steps).toEqual(Array.from({ length: 150 }, (_, i) => i + 1));
  });
});

it("a step's time is the median of those behind the first, across an interruption", () => {
  const at = (step: number, seconds: number) => ({ step, loss: 1, seconds, peakMemoryBytes: 1000 * step });
  const lines = [{ step: 0 }, at(1, 9), at(2, 10), at(3, 12), at(4, 1), at(5, 3)];
  expect(measuredIn(lines)).toEqual({ secondsPerStep: 2, peakMemoryBytes: 5000 });
  expect(measuredIn([at(1, 9)])).toBeUndefined();
});
