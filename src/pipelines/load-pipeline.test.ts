import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import "../runtime/node.js";
import "../storage/node.js";
import { createScheduler } from "../schedulers/index.js";
import { loadPipeline } from "./load-pipeline.js";

const TINY = "test/reference/pipeline-tiny";

let dir: string;

beforeEach(async () => {
  dir = join(await mkdtemp(join(tmpdir(), "fera-load-")), "pipeline");
  await cp(TINY, dir, { recursive: true });
  const change = async (file: string, values: object) => {
    const old = JSON.parse(await readFile(join(dir, file), "utf8"));
    await writeFile(join(dir, file), JSON.stringify({ ...old, ...values }));
  };
  await change("model_index.json", { scheduler: ["diffusers", "DEISMultistepScheduler"] });
  await change("scheduler/scheduler_config.json", { _class_name: "DEISMultistepScheduler", solver_order: 2 });
});
afterEach(() => rm(join(dir, ".."), { recursive: true, force: true }));

describe("a pipeline whose scheduler is not supported", () => {
  const options = { prompt: "a red circle", steps: 2, seed: 1 };

  it("is loaded, and refuses to sample by the scheduler's name", async () => {
    const pipeline = await loadPipeline(dir);
    expect(pipeline.schedulerConfig).toMatchObject({ _class_name: "DEISMultistepScheduler", beta_start: 0.00085 });
    await expect(pipeline.generate(options)).rejects.toThrow(/_class_name="DEISMultistepScheduler" is not supported/);
    await pipeline.release();
  });

  it("samples with another, given when it is loaded, replaced later, or given to the run", async () => {
    const expected = await loadPipeline(TINY);
    const { latents } = await expected.generate(options);
    await expected.release();
    const other = () => createScheduler(expected.schedulerConfig);
    expect(expected.schedulerConfig).toHaveProperty("_class_name");
    const given = await loadPipeline(dir, { scheduler: other() });
    expect((await given.generate(options)).latents.data).toEqual(latents.data);
    await given.release();
    const pipeline = await loadPipeline(dir);
    expect((await pipeline.generate({ ...options, scheduler: other() })).latents.data).toEqual(latents.data);
    pipeline.scheduler = other();
    expect((await pipeline.generate(options)).latents.data).toEqual(latents.data);
    await pipeline.release();
  });
});
