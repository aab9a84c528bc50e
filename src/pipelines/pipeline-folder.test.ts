import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { TINY_INDEX } from "../../test/support/tiny-pipeline.js";
import { FormatError } from "../errors.js";
import { parsePythonJson } from "../storage/json.js";
import { describePipeline } from "./pipeline-folder.js";
import "../storage/node.js";

const XL_INDEX = {
  ...TINY_INDEX,
  _class_name: "StableDiffusionXLPipeline",
  force_zeros_for_empty_prompt: false,
  add_watermarker: null,
  text_encoder_2: ["transformers", "CLIPTextModelWithProjection"],
  tokenizer_2: ["transformers", "CLIPTokenizer"],
};

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

  it("tells SDXL, and what stands for a missing negative prompt", async () => {
    await expect(describeWith(TINY_INDEX)).resolves.toMatchObject({ pipelineClass: "StableDiffusionPipeline" });
    await expect(describeWith(XL_INDEX)).resolves.toMatchObject({
      pipelineClass: "StableDiffusionXLPipeline",
      forceZerosForEmptyPrompt: false,
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
      { ...TINY_INDEX, _class_name: "KandinskyPipeline" },
      /must be StableDiffusionPipeline, .*FluxPipeline.*"KandinskyPipeline"/,
    ],
    [
      "another class of model",
      { ...TINY_INDEX, unet: ["diffusers", "UNet3D"] },
      /unet must be a UNet2DCondition.*"UNet3D"/,
    ],
    ["a component that is not known", { ...TINY_INDEX, ears: ["x", "Ears"] }, /the component "ears" \("Ears"\)/],
    ["no text encoder", { ...TINY_INDEX, text_encoder: [null, null] }, /names no text_encoder/],
    [
      "SDXL's second encoder missing",
      { ...XL_INDEX, text_encoder_2: [null, null], tokenizer_2: undefined },
      /names no text_encoder_2, no tokenizer_2/,
    ],
    [
      "SDXL's second encoder of another class",
      { ...XL_INDEX, text_encoder_2: TINY_INDEX.text_encoder },
      /text_encoder_2 must be a CLIPTextModelWithProjection; got "CLIPTextModel"/,
    ],
    ["SDXL's refiner", { ...XL_INDEX, requires_aesthetics_score: true }, /requires_aesthetics_score.*must be false/],
    ["a switch that is none", { ...XL_INDEX, force_zeros_for_empty_prompt: "yes" }, /true or false; got "yes"/],
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

  it("that is another file, or missing, is refused", async () => {
    const file = join(dir, "scheduler/scheduler_config.json");
    await expect(describePipeline(file)).rejects.toThrow(/scheduler_config\.json: .*safetensors/);
    await expect(describePipeline(join(dir, "none"))).rejects.toThrow(/there is no such folder\.$/);
  });

  it("that is a hub id is looked for in the hub's cache", async () => {
    const options = { localFilesOnly: true, cacheDir: join(dir, "hub") };
    await expect(describePipeline("someone/some-model", undefined, options)).rejects.toThrow(/"main" is not in .*hub/);
    const snapshot = join(dir, "hub/models--someone--some-model/snapshots", "a".repeat(40));
    await mkdir(join(snapshot, "scheduler"), { recursive: true });
    await mkdir(join(dir, "hub/models--someone--some-model/refs"));
    await writeFile(join(dir, "hub/models--someone--some-model/refs/main"), "a".repeat(40));
    await writeFile(join(snapshot, "model_index.json"), JSON.stringify(TINY_INDEX));
    await writeFile(join(snapshot, "scheduler/scheduler_config.json"), "{}");
    await expect(describePipeline("someone/some-model", undefined, options)).resolves.toMatchObject({
      source: snapshot,
      tokenizerSource: snapshot,
    });
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
