// A whole training of a pipeline of flow matching, from a folder of images to an adapter that draws.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, vi } from "vitest";
import { FeRAConfig } from "../../src/adapters/index.js";
import "../../src/index.js";
import { loadPipeline } from "../../src/pipelines/index.js";
import { fineTune } from "../../src/training/fine-tune.js";
import { openDataset } from "../../src/training/index.js";
import { writeTinyImages } from "./fera-program.js";

/** @param write - Writes the pipeline's folder. */
export async function trainTinyFlow(write: (dir: string) => Promise<void>): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), "fera-flow-"));
  vi.stubEnv("FERA_CACHE", join(dir, "cache"));
  try {
    await writeTinyImages(join(dir, "images"));
    const model = join(dir, "model");
    await write(model);
    const pipeline = await loadPipeline(model);
    const dataset = await openDataset(join(dir, "images"), { size: 32 });
    const losses: number[] = [];
    const { adapter } = await fineTune({
      ...{ pipeline, dataset, output: join(dir, "trained"), config: new FeRAConfig({ rank: 2 }) },
      ...{ steps: 2, batchSize: 2, learningRate: 1e-3, captionDropout: 0, seed: 0 },
      onStep: ({ loss }) => void losses.push(loss),
    });
    expect(losses).toHaveLength(2);
    expect(losses.every(Number.isFinite)).toBe(true);
    const options = { prompt: "a red circle", width: 32, height: 32, steps: 1, guidanceScale: 0, seed: 1 };
    const without = await pipeline.generate(options);
    await pipeline.loadAdapters(adapter);
    const adapted = await pipeline.generate(options);
    expect(adapted.route).toBeDefined();
    expect(adapted.latents.data).not.toEqual(without.latents.data);
    await pipeline.dispose();
  } finally {
    vi.unstubAllEnvs();
    rmSync(dir, { recursive: true, force: true });
  }
}
