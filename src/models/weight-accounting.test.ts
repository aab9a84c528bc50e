import { cp, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import "../storage/node.js";
import { FormatError } from "../errors.js";
import { encodeSafetensors, readSafetensors, writeTorch } from "../storage/index.js";
import { type Tensor, tensor, zeros } from "../tensor/tensor.js";
import { AutoencoderTiny } from "./autoencoder-tiny/autoencoder-tiny.js";
import { CLIPTextModel } from "./clip-text/clip-text-model.js";
import { CLIPTextModelWithProjection } from "./clip-text/clip-text-model-with-projection.js";
import { KNOWN_MODELS } from "./known-models.js";
import { UNet2DConditionModel } from "./unet-2d-condition/unet-2d-condition.js";

const UNET = "test/reference/unet-sd15/unet";
const NAME = "diffusion_pytorch_model.safetensors";

let root: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "fera-accounting-"));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(root, { recursive: true, force: true });
});

/** A copy of a model's folder with other tensors. */
async function altered(dir: string, file: string, change: (tensors: Map<string, Tensor>) => void): Promise<string> {
  const target = join(root, String(Math.random()));
  await mkdir(target);
  await cp(join(dir, "config.json"), join(target, "config.json"));
  const { tensors } = await readSafetensors(join(dir, file));
  change(tensors);
  await writeFile(join(target, file), encodeSafetensors(tensors));
  return target;
}

const refusalOf = async (loading: Promise<unknown>): Promise<string> => {
  const failure = await loading.catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(FormatError);
  return (failure as Error).message;
};

describe("a checkpoint is refused when it is loaded", () => {
  it.each([
    ["UNet2DConditionModel", UNET, NAME],
    ["AutoencoderKL", "test/reference/vae-kl/vae", NAME],
    ["AutoencoderTiny", "test/reference/vae-tiny/vae", NAME],
    ["CLIPTextModel", "test/reference/clip-text/text_encoder", "model.safetensors"],
    ["CLIPTextModelWithProjection", "test/reference/clip-text-projection/text_encoder_2", "model.safetensors"],
  ])("of %s, with a weight too many, of integers too, or one too few", async (className, dir, file) => {
    const Model = KNOWN_MODELS.get(className)!;
    const load = (folder: string) => Model.fromPretrained(folder, { subfolder: "" });
    await expect(load(dir)).resolves.toBeDefined();
    const extra = await altered(dir, file, (tensors) => tensors.set("extra.layer.weight", tensor([1])));
    expect(await refusalOf(load(extra))).toMatch(
      new RegExp(
        `has a weight that a ${className} of this configuration does not use: "(text_model\\.)?extra\\.layer\\.weight"`,
      ),
    );
    const integer = await altered(dir, file, (tensors) => tensors.set("codes", tensor([1], [1], "int64")));
    expect(await refusalOf(load(integer))).toMatch(/does not use: "codes"/);
    let removed = "";
    const fewer = await altered(dir, file, (tensors) => {
      removed = [...tensors.keys()].filter((name) => name.endsWith(".weight")).at(-1)!;
      tensors.delete(removed);
    });
    expect(await refusalOf(load(fewer))).toMatch(new RegExp(`weight "(text_model\\.)?${removed}" is missing`));
  });

  it("and names the first of many, and how many there are", async () => {
    const dir = await altered(UNET, NAME, (tensors) => {
      for (let i = 0; i < 30; i++) tensors.set(`z${String(i).padStart(2, "0")}`, tensor([1]));
    });
    expect(await refusalOf(UNet2DConditionModel.fromPretrained(dir))).toMatch(
      /has 30 weights that .* does not use: "z00", "z01", "z02" and 27 more\. It was made for another model/,
    );
    const fewer = await altered(UNET, NAME, (tensors) => {
      for (const name of [...tensors.keys()].filter((each) => each.startsWith("mid_block."))) tensors.delete(name);
      tensors.set("conv_in.weight", zeros([1]));
    });
    expect(await refusalOf(UNet2DConditionModel.fromPretrained(fewer))).toMatch(
      /is missing|is \[1\]; the configuration needs .* \(and \d+ more such problems\)/,
    );
  });

  it("in pickles likewise, at the first start and when they come from the cache", async () => {
    const dir = await altered(UNET, NAME, () => undefined);
    const { tensors } = await readSafetensors(join(dir, NAME));
    await rm(join(dir, NAME));
    // As many bytes as go through the cache.
    const integers = zeros([2 ** 19], "int64");
    await writeTorch(join(dir, "diffusion_pytorch_model.bin"), new Map<string, Tensor>([...tensors, ["n", integers]]));
    vi.stubEnv("FERA_CACHE", join(root, "cache"));
    for (let i = 0; i < 2; i++) {
      expect(await refusalOf(UNet2DConditionModel.fromPretrained(dir))).toMatch(/not use: "n"/);
      expect(await readdir(join(root, "cache/float32"))).toHaveLength(1);
    }
  });
});

it("a tiny autoencoder with all that AutoencoderTiny needs, and more, is refused", async () => {
  // As the tiny autoencoder of FLUX.2: every weight that the configuration asks for, and 24 that the class does not know.
  const dir = await altered("test/reference/vae-tiny/vae", NAME, (tensors) => {
    for (let i = 0; i < 24; i++) tensors.set(`encoder.layers.3.pool.${i}.weight`, zeros([8, 8, 3, 3]));
  });
  expect(await refusalOf(AutoencoderTiny.fromPretrained(dir))).toMatch(
    /has 24 weights that a AutoencoderTiny .* does not use: "encoder\.layers\.3\.pool\.0\.weight", /,
  );
});

describe("what is known to change nothing is left out", () => {
  it.each([
    ["text_model.embeddings.position_ids", tensor([0, 1], [1, 2], "int64")],
    ["text_model.embeddings.position_ids", tensor([0, 1], [1, 2])],
    ["vision_model.embeddings.class_embedding", zeros([4])],
    ["visual_projection.weight", zeros([4, 4])],
    ["text_projection.weight", zeros([4, 4])],
    ["logit_scale", zeros([])],
  ] as const)("of a text encoder's file: %s", async (name, value) => {
    const dir = await altered("test/reference/clip-text/text_encoder", "model.safetensors", (tensors) =>
      tensors.set(name, value),
    );
    const model = await CLIPTextModel.fromPretrained(dir, { subfolder: "" });
    expect([...model.weights.weights.keys()].some((each) => each.endsWith(name))).toBe(false);
  });

  it("but not the projection where it is used", async () => {
    const dir = await altered("test/reference/clip-text-projection/text_encoder_2", "model.safetensors", (tensors) =>
      tensors.delete("text_projection.weight"),
    );
    const loading = CLIPTextModelWithProjection.fromPretrained(dir, { subfolder: "" });
    expect(await refusalOf(loading)).toMatch(/"text_projection\.weight" is missing/);
  });
});

it("a dry run accounts for everything and reads no weights", async () => {
  const dir = await altered(UNET, NAME, (tensors) => tensors.set("extra", tensor([1], [1], "float16" as never)));
  expect(await refusalOf(UNet2DConditionModel.fromPretrained(dir, { dryRun: true }))).toMatch(/not use: "extra"/);
  const model = await UNet2DConditionModel.fromPretrained(UNET, { dryRun: true });
  expect(model.weights.weights.get("conv_in.weight")).toMatchObject({ shape: [16, 4, 3, 3] });
});
