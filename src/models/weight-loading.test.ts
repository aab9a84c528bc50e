import { copyFile, cp, mkdtemp, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { compareGradients } from "../../bench/gradient-cosine.js";
import { relativeError } from "../../test/support/relative-error.js";
import { FeRAConfig, FeRAModel } from "../adapters/index.js";
import { FormatError } from "../errors.js";
import type { FileRange } from "../graph/index.js";
import { encodeSafetensors, readSafetensors, writeTorch } from "../storage/index.js";
import { float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from "../tensor/float16.js";
import { Generator, randn } from "../tensor/random.js";
import { sizeOf, type Tensor, tensor } from "../tensor/tensor.js";
import "../runtime/node.js";
import "../storage/node.js";
import { FileStorage } from "../storage/file-storage.js";
import { safetensorsHead } from "../storage/safetensors.js";
import { openSafetensorsIn } from "../storage/safetensors-source.js";
import { AdamW } from "../training/index.js";
import { UNet2DConditionModel } from "./unet-2d-condition/unet-2d-condition.js";
import { loadPickled, loadSafetensors, type WeightType } from "./weight-loading.js";

const REFERENCE = "test/reference/unet-sd15/unet";
const NAME = "diffusion_pytorch_model";

let root: string;
let messages: string[];
const onMessage = (message: string) => messages.push(message);

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "fera-weights-"));
  messages = [];
  vi.stubEnv("FERA_CACHE", join(root, "cache"));
  await copyFile(join(REFERENCE, "config.json"), join(root, "config.json"));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(root, { recursive: true, force: true });
});

async function referenceTensors(): Promise<Map<string, Tensor<"float32">>> {
  return (await readSafetensors(join(REFERENCE, `${NAME}.safetensors`))).tensors as Map<string, Tensor<"float32">>;
}

/** A safetensors file whose tensors are all bfloat16. */
function bfloat16File(tensors: ReadonlyMap<string, Tensor<"float32">>): Uint8Array {
  const encoded = [...tensors].map(([name, { data, shape }]) => ({ name, shape, bytes: float32ToBfloat16(data) }));
  const head = safetensorsHead(encoded.map(({ name, shape }) => ({ name, dtype: "BF16" as const, shape })));
  return Buffer.concat([head, ...encoded.map(({ bytes }) => Buffer.from(bytes.buffer))]);
}

const halved = (tensors: ReadonlyMap<string, Tensor<"float32">>) =>
  new Map([...tensors].map(([name, { data, shape }]) => [name, tensor(float32ToFloat16(data), shape, "float16")]));

/** The weights of one file under `root`. */
async function safetensorsWeights(name: string, dtype?: WeightType) {
  const storage = new FileStorage(root, { onMessage });
  return (await loadSafetensors(storage, await openSafetensorsIn(storage, name), { dtype })).weights;
}

async function pickledWeights(
  name: string,
  { folder = root, tensors }: { folder?: string; tensors?: Set<string> } = {},
) {
  const storage = new FileStorage(folder, { onMessage });
  return (await loadPickled(storage, { name, path: storage.nameOf(name), tensors })).weights;
}

/** The adapters' gradients for a fixed batch. */
async function firstGradients(model: UNet2DConditionModel): Promise<Map<string, Tensor<"float32">>> {
  const generator = new Generator(5);
  const fera = new FeRAModel(model, new FeRAConfig({ rank: 2, numExperts: 2 }));
  const step = await fera.compileTrainStep({ batchSize: 1, height: 8, width: 8, tokens: 5 });
  const { gradients } = await step.gradients({
    latents: randn([1, 4, 8, 8], { generator }),
    timesteps: tensor([400]),
    encoderHiddenStates: randn([1, 5, model.config.cross_attention_dim], { generator }),
    target: randn([1, 4, 8, 8], { generator }),
  });
  await step.release();
  return gradients;
}

/** A model's answer to fixed inputs. */
async function answer(model: UNet2DConditionModel): Promise<Float32Array> {
  const generator = new Generator(3);
  const latents = randn([1, 4, 8, 8], { generator });
  const encoderHiddenStates = randn([1, 5, model.config.cross_attention_dim], { generator });
  const output = await model.predict({ latents, timesteps: tensor([500]), encoderHiddenStates });
  await model.release();
  return output.data;
}

describe("a model's weights", () => {
  it("of float16 give the float32 model's answer to half precision, whole, as a variant, in shards and pickled", async () => {
    const tensors = await referenceTensors();
    const expected = await answer(await UNet2DConditionModel.fromPretrained(REFERENCE));
    const half = halved(tensors);
    await writeFile(join(root, `${NAME}.fp16.safetensors`), encodeSafetensors(half));
    const variant = await answer(await UNet2DConditionModel.fromPretrained(root, { variant: "fp16" }));
    expect(relativeError(variant, expected)).toBeLessThan(5e-3);
    expect(relativeError(variant, expected)).toBeGreaterThan(0);

    await rm(join(root, `${NAME}.fp16.safetensors`));
    const names = [...half.keys()];
    const files = [`${NAME}-00001-of-00002.safetensors`, `${NAME}-00002-of-00002.safetensors`] as const;
    const map = Object.fromEntries(names.map((name, i) => [name, files[i % 2]!]));
    for (const file of files) {
      const part = new Map([...half].filter(([name]) => map[name] === file));
      await writeFile(join(root, file), encodeSafetensors(part));
    }
    await writeFile(join(root, `${NAME}.safetensors.index.json`), JSON.stringify({ weight_map: map }));
    expect(await answer(await UNet2DConditionModel.fromPretrained(root))).toEqual(variant);

    for (const file of [...files, `${NAME}.safetensors.index.json`]) await rm(join(root, file));
    await writeTorch(join(root, `${NAME}.bin`), half);
    expect(await answer(await UNet2DConditionModel.fromPretrained(root))).toEqual(variant);
  });

  it("of bfloat16 are read exactly", async () => {
    const path = join(root, "x.safetensors");
    const values = Uint16Array.of(0x3f80, 0xc010, 0x0001);
    const bytes = encodeSafetensors({ a: tensor(values, [3], "float16") });
    // The same bits under the other name; both headers are as long with one space less of padding.
    const text = new TextDecoder("latin1").decode(bytes).replace('"F16"', '"BF16"').replace(" ", "");
    await writeFile(
      path,
      Uint8Array.from(text, (character) => character.charCodeAt(0)),
    );
    const weights = await safetensorsWeights("x.safetensors");
    expect(weights.get("a")).toMatchObject({ tensor: tensor([1, -2.25, 2 ** -133]) });
  });

  it("are converted into the cache where they are many, and float32 stays in place", async () => {
    const path = join(root, "big.safetensors");
    const data = Float32Array.from({ length: 2 ** 21 }, (_, i) => i % 512);
    const content = { half: tensor(float32ToFloat16(data), [2 ** 21], "float16"), full: tensor([1, 2]) };
    await writeFile(path, encodeSafetensors({ ...content, position_ids: tensor([1], [1], "int64") }));
    const weights = await safetensorsWeights("big.safetensors");
    expect([...weights.keys()].sort()).toEqual(["full", "half"]);
    expect(weights.get("full")).toMatchObject({ range: { path: await realpath(path) } });
    const { range } = weights.get("half") as { range: { path: string; offset: number; length: number } };
    expect(range.path).toContain(join(root, "cache", "float32", "big-"));
    expect((await readFile(range.path)).subarray(range.offset, range.offset + 8)).toEqual(
      Buffer.from(Float32Array.of(0, 1).buffer),
    );
    expect(messages).toEqual([expect.stringMatching(/big\.safetensors is float16: converting it once .*8\.39 MB/)]);

    vi.stubEnv("FERA_CACHE", path);
    const inMemory = await safetensorsWeights("big.safetensors");
    expect((inMemory.get("half") as { tensor: Tensor }).tensor.data[1000]).toBe(488);
    expect(messages.at(-1)).toMatch(/converted in memory/);
  });

  it("that are pickled go through the cache, too, where they are many", async () => {
    const path = join(root, "big.bin");
    const data = Float32Array.from({ length: 2 ** 20 }, (_, i) => i % 512);
    await writeTorch(path, { a: tensor(data, [2 ** 10, 2 ** 10]), steps: tensor([3], [], "int64") });
    const weights = await pickledWeights("big.bin");
    expect([...weights]).toEqual([["a", { shape: [1024, 1024], range: expect.objectContaining({ length: 2 ** 22 }) }]]);
    expect(messages).toEqual([expect.stringMatching(/big\.bin is a pickle: converting it once/)]);
  });

  it("that torch saved from a module are read", async () => {
    const folder = "test/reference/single-file";
    const expected = JSON.parse(await readFile(join(folder, "state_dict.json"), "utf8")) as Record<string, number[]>;
    const weights = await pickledWeights("state_dict.bin", { folder });
    const found = [...weights].map(([name, weight]) => [name, [...(weight as { tensor: Tensor }).tensor.data]]);
    expect(Object.fromEntries(found)).toEqual(expected);
  });

  it("that are pickled with anything but tensors are refused with the way out", async () => {
    const path = join(root, "x.bin");
    await writeFile(path, "\x80\x02}q\x00.", "latin1");
    const failure = await pickledWeights("x.bin").catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(FormatError);
    expect((failure as Error).message).toMatch(/x\.bin: is a bare pickle.*convert this one to safetensors/);
  });

  it("that a shard of pickles lacks are named", async () => {
    const path = join(root, "x.bin");
    await writeTorch(path, { a: tensor([1]) });
    await expect(pickledWeights("x.bin", { tensors: new Set(["a", "b"]) })).rejects.toThrow(/"b" should be in/);
    await expect(pickledWeights("x.bin", { tensors: new Set() })).rejects.toThrow(/"a" is in/);
  });

  it("of types that are none of weights are refused", async () => {
    const path = join(root, "x.safetensors");
    const bytes = encodeSafetensors({ a: tensor([0, 1], [2], "bool") }, { pad: "xxx" });
    const text = new TextDecoder("latin1").decode(bytes).replace('"BOOL"', '"F8_E8M0"').replace("xxx", "");
    await writeFile(
      path,
      Uint8Array.from(text, (character) => character.charCodeAt(0)),
    );
    await expect(safetensorsWeights("x.safetensors")).rejects.toThrow(/"a" is F8_E8M0; weights must be/);
  });

  it.each(["float32", "auto", "float16", "int8"] as const)("of 8 bits are widened to %s", async (dtype) => {
    const path = join(root, "float8.safetensors");
    const bytes = encodeSafetensors({ a: tensor([0, 1], [2], "bool") }, { pad: "xxx" });
    const text = new TextDecoder("latin1").decode(bytes).replace('"BOOL"', '"F8_E4M3"').replace("xxx", "");
    const file = Uint8Array.from(text, (character) => character.charCodeAt(0));
    file.set([0x7e, 0xb8], file.length - 2);
    await writeFile(path, file);
    const weights = await safetensorsWeights("float8.safetensors", dtype);
    const weight = weights.get("a")!;
    expect("tensor" in weight && [...weight.tensor.data]).toEqual([448, -1]);
  });

  it("of 8 bits that are many are copied as bfloat16, which has all of their values", async () => {
    const values = new Uint8Array(2 ** 22).fill(0x39);
    const head = safetensorsHead([{ name: "a", dtype: "F8_E5M2", shape: [2 ** 11, 2 ** 11] }]);
    await writeFile(join(root, "many.safetensors"), Buffer.concat([head, values]));
    const weight = (await safetensorsWeights("many.safetensors", "auto")).get("a")!;
    const { path, offset, length, stored } = (weight as { range: FileRange }).range;
    expect([stored, length]).toEqual(["bfloat16", 2 ** 23]);
    const first = (await readFile(path)).subarray(offset, offset + 2);
    // 0.625
    expect([...first]).toEqual([0x20, 0x3f]);
  });
});

describe("frozen weights of half precision", () => {
  it.each([
    ["float16", (tensors: ReadonlyMap<string, Tensor<"float32">>) => encodeSafetensors(halved(tensors))],
    ["bfloat16", bfloat16File],
  ] as const)("of a %s file are used where they lie, with the numbers of a float32 copy", async (dtype, encode) => {
    const path = join(root, `${NAME}.safetensors`);
    await writeFile(path, encode(await referenceTensors()));
    const copied = await UNet2DConditionModel.fromPretrained(root);
    const [expected, gradients] = [await answer(copied), await firstGradients(copied)];
    for (const asked of [dtype, "auto"] as const) {
      const model = await UNet2DConditionModel.fromPretrained(root, { dtype: asked });
      const stored = [...model.weights.weights.values()].map((weight) => "range" in weight && weight.range);
      expect(new Set(stored.map((range) => range && `${range.path} ${range.stored}`))).toEqual(
        new Set([`${await realpath(path)} ${dtype}`]),
      );
      expect(await answer(model)).toEqual(expected);
      if (asked === "auto") expect(await firstGradients(model)).toEqual(gradients);
    }
  });

  it.each(["float16", "bfloat16"] as const)("are rounded to %s once, in the cache or in memory", async (dtype) => {
    const data = Float32Array.from({ length: 2 ** 20 }, (_, i) => 1 + i / 2 ** 16);
    await writeFile(join(root, "big.safetensors"), encodeSafetensors({ a: tensor(data, [1024, 1024]) }));
    const [name, weight] = [...(await safetensorsWeights("big.safetensors", dtype))][0]!;
    const { range } = weight as { range: FileRange };
    expect([name, range.stored, range.length]).toEqual(["a", dtype, 2 ** 21]);
    expect(range.path).toContain(join(root, "cache", dtype, "big-"));
    expect(messages).toEqual([expect.stringMatching(`big.safetensors is float32: converting it once to ${dtype}`)]);
    const kept = (await readSafetensors(range.path)).tensors.get("a")!;

    vi.stubEnv("FERA_CACHE", join(root, "big.safetensors"));
    const held = (await safetensorsWeights("big.safetensors", dtype)).get("a") as { tensor: Tensor<"float32"> };
    const widened = kept.dtype === "float16" ? float16ToFloat32(kept.data as Uint16Array) : kept.data;
    expect(relativeError(held.tensor.data, widened as Float32Array)).toBe(0);
    expect(relativeError(held.tensor.data, data)).toBeLessThan(dtype === "float16" ? 2 ** -11 : 2 ** -8);
    expect(held.tensor.data[1]).toBe(1);
  });

  it("of float32 files stay float32 where the file's own type is asked for", async () => {
    const model = await UNet2DConditionModel.fromPretrained(REFERENCE, { dtype: "auto" });
    const ranges = [...model.weights.weights.values()].map((weight) => "range" in weight && weight.range.stored);
    expect(new Set(ranges)).toEqual(new Set([undefined]));
  });

  it("of a type that there is not are refused", async () => {
    const options = { dtype: "int3" as "auto" };
    await expect(UNet2DConditionModel.fromPretrained(REFERENCE, options)).rejects.toThrow(
      /dtype: must be one of float32, float16, bfloat16, .*got "int3"/,
    );
  });
});

describe("frozen weights as integers", () => {
  it("are those of large layers, made once; what is sensitive stays as it is, and gradients keep their direction", async () => {
    await copyFile(join(REFERENCE, `${NAME}.safetensors`), join(root, `${NAME}.safetensors`));
    const load = (dtype: WeightType) => UNet2DConditionModel.fromPretrained(root, { dtype, onMessage });
    const model = await load("int8");
    const isInt8 = (weight: object) => "range" in weight && typeof (weight.range as FileRange).stored === "object";
    const names = [...model.weights.weights].filter(([, weight]) => isInt8(weight)).map(([name]) => name);
    expect(names.length).toBeGreaterThan(15);
    expect(names.filter((name) => /conv_in|conv_out|time_|norm|bias|proj_in|proj_out|shortcut/.test(name))).toEqual([]);
    expect(model.weights.quantization).toBe("int8");
    expect(messages).toEqual([expect.stringMatching(/is float32: converting it once to int8/)]);
    await load("int8");
    expect(messages).toHaveLength(1);
    const half = {
      batchSize: 1,
      height: 8,
      width: 8,
      optimizer: new AdamW({ lr: 1e-4 }),
      mixedPrecision: "fp16",
    } as const;
    await expect(new FeRAModel(model, new FeRAConfig()).compileTrainStep(half)).rejects.toThrow(
      /mixedPrecision fp16 .*not with weights kept as int8/,
    );

    const exact = await load("float32");
    expect(exact.weights.quantization).toBeUndefined();
    const error = relativeError(await answer(model), await answer(exact));
    expect(error).toBeGreaterThan(1e-4);
    expect(error).toBeLessThan(0.03);
    const numbers = (gradients: Map<string, Tensor<"float32">>) =>
      new Map([...gradients].map(([name, { data }]) => [name, data]));
    const worst = compareGradients(numbers(await firstGradients(model)), numbers(await firstGradients(exact)));
    expect(worst.gradientCosine).toBeGreaterThan(0.99);
    expect(worst.gradientCosine).toBeLessThan(1 - 1e-7);
  });

  it("can be of 4 bits, an eighth of float32's size", async () => {
    await copyFile(join(REFERENCE, `${NAME}.safetensors`), join(root, `${NAME}.safetensors`));
    const model = await UNet2DConditionModel.fromPretrained(root, { dtype: "nf4" });
    const kept = [...model.weights.weights.values()].flatMap((weight) =>
      "range" in weight && typeof weight.range.stored === "object" ? [weight] : [],
    );
    expect(kept.length).toBeGreaterThan(15);
    for (const { shape, range } of kept) expect(range.length).toBe(sizeOf(shape) / 2);
    const exact = await UNet2DConditionModel.fromPretrained(root);
    const error = relativeError(await answer(model), await answer(exact));
    expect(error).toBeGreaterThan(1e-3);
    expect(error).toBeLessThan(0.2);
  });

  it("need a cache, and safetensors", async () => {
    const tensors = await referenceTensors();
    await writeTorch(join(root, `${NAME}.bin`), tensors);
    const load = () => UNet2DConditionModel.fromPretrained(root, { dtype: "int8" });
    await expect(load()).rejects.toThrow(/int8 needs weights in safetensors; .*is a pickle/);
    await rm(join(root, `${NAME}.bin`));
    await copyFile(join(REFERENCE, `${NAME}.safetensors`), join(root, `${NAME}.safetensors`));
    vi.stubEnv("FERA_CACHE", join(root, "config.json"));
    await expect(load()).rejects.toThrow(/int8 needs a copy of .* which could not be written/);
  });
});

describe("a folder that is none of this machine", () => {
  it("is looked for in the hub's cache", async () => {
    const snapshot = join(root, "hub/models--someone--unet/snapshots", "b".repeat(40));
    await cp(REFERENCE, join(snapshot, "unet"), { recursive: true });
    const options = { subfolder: "unet", revision: "b".repeat(40), cacheDir: join(root, "hub"), localFilesOnly: true };
    await expect(UNet2DConditionModel.fromPretrained("someone/unet", options)).resolves.toBeDefined();
    await expect(UNet2DConditionModel.fromPretrained("none")).rejects.toThrow(/no such folder/);
  });
});
