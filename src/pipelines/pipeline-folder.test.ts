import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { TINY_INDEX } from "../../test/support/tiny-pipeline.js";
import { FormatError } from "../errors.js";
import { describePipeline, parsePythonJson } from "./pipeline-folder.js";
import "./pipeline-node.js";

let dir: string;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-pipeline-folder-"));
  await mkdir(join(dir, "scheduler"));
  await writeFile(join(dir, "scheduler/scheduler_config.json"), '{"_class_name": "DDIMScheduler", "steps_offset": 1}');
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const describeWith = async (index: unknown) => {
  await writeFile(join(dir, "model_index.json"), typeof index === "string" ? index : JSON.stringify(index));
  return describePipeline(dir);
};

describe("a pipeline's folder", () => {
  it("tells the classes, and ignores the safety checker", async () => {
    await expect(describeWith(TINY_INDEX)).resolves.toMatchObject({
      vaeClass: "AutoencoderTiny",
      schedulerConfig: { _class_name: "DDIMScheduler", steps_offset: 1 },
    });
  });

  it("may be written by Python, with bare -Infinity in the scheduler's configuration", async () => {
    await writeFile(
      join(dir, "scheduler/scheduler_config.json"),
      '{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity}',
    );
    const index = { ...TINY_INDEX, scheduler: ["diffusers", "DPMSolverMultistepScheduler"] };
    const { schedulerConfig } = await describeWith(index);
    expect(schedulerConfig.lambda_min_clipped).toBe(Number.NEGATIVE_INFINITY);
  });

  it.each([
    [
      "another pipeline",
      { ...TINY_INDEX, _class_name: "FluxPipeline" },
      /must be StableDiffusionPipeline.*"FluxPipeline"/,
    ],
    [
      "another class of model",
      { ...TINY_INDEX, unet: ["diffusers", "UNet3D"] },
      /unet must be a UNet2DCondition.*"UNet3D"/,
    ],
    ["a component that is not known", { ...TINY_INDEX, ears: ["x", "Ears"] }, /the component "ears" \("Ears"\)/],
    ["no text encoder", { ...TINY_INDEX, text_encoder: [null, null] }, /names no text_encoder/],
    ["JSON that is none", "{", /model_index\.json: is not valid JSON/],
    ["JSON that is no object", "[]", /must hold a JSON object/],
  ])("with %s is refused", async (_, index, message) => {
    const described = describeWith(index);
    await expect(described).rejects.toBeInstanceOf(FormatError);
    await expect(described).rejects.toThrow(message);
  });

  it("without model_index.json is refused", async () => {
    await expect(describePipeline(dir)).rejects.toThrow(/has no model_index\.json; it holds scheduler/);
    await writeFile(join(dir, "config.json"), "{}");
    await expect(describePipeline(dir)).rejects.toThrow(/name the folder around it/);
  });

  it("without a scheduler's configuration is refused", async () => {
    await rm(join(dir, "scheduler"), { recursive: true });
    await expect(describeWith(TINY_INDEX)).rejects.toThrow(/scheduler_config\.json: cannot be read/);
  });

  it("that is a file, or missing, is refused", async () => {
    const file = join(dir, "scheduler/scheduler_config.json");
    await expect(describePipeline(file)).rejects.toThrow(/is a file, but a pipeline is a folder/);
    await expect(describePipeline(join(dir, "none"))).rejects.toThrow(/there is no such folder\.$/);
  });

  it("that is a hub id is refused with how to fetch it", async () => {
    await expect(describePipeline("someone/some-model")).rejects.toThrow(
      /not yet downloaded.*hf download someone\/some-model --local-dir/,
    );
  });
});

describe("parsePythonJson", () => {
  it("leaves strings alone", () => {
    expect(parsePythonJson('{"a": [-Infinity, Infinity, NaN], "-Infinity \\" NaN": "Infinity"}')).toEqual({
      a: [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, null],
      '-Infinity " NaN': "Infinity",
    });
  });
});
