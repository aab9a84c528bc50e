import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FormatError } from "../errors.js";
import { tensor } from "../tensor/tensor.js";
import { readJson } from "./file-access.js";
import { FileStorage } from "./file-storage.js";
import { type ModelFolderOptions, readModelFolder } from "./model-folder.js";
import { encodeSafetensors } from "./safetensors.js";

const A = encodeSafetensors({ a: tensor([1]) });
const B = encodeSafetensors({ b: tensor([2, 3]) });
const CONFIG = '{"_class_name": "UNet2DConditionModel"}';
const NAME = "diffusion_pytorch_model";
let root: string;
let made = 0;

const open = (dir: string, options: ModelFolderOptions = {}) => readModelFolder(new FileStorage(dir), options);

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "fera-folder-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

/** Makes a folder of the given files. */
async function folder(files: Record<string, string | Uint8Array>): Promise<string> {
  const dir = join(root, String(made++));
  await mkdir(dir);
  for (const [name, content] of Object.entries(files)) await writeFile(join(dir, name), content);
  return dir;
}

const index = (map: Record<string, unknown>) => JSON.stringify({ metadata: {}, weight_map: map });
const shards = (map: Record<string, unknown>) => ({
  "config.json": CONFIG,
  [`${NAME}.safetensors.index.json`]: index(map),
  [`${NAME}-00001-of-00002.safetensors`]: A,
  [`${NAME}-00002-of-00002.safetensors`]: B,
});

describe("readModelFolder", () => {
  it("reads a model that diffusers saved", async () => {
    const model = await open("test/reference/unet-sd15", {
      subfolder: "unet",
      expectedClass: "UNet2DConditionModel",
    });
    expect(model.dir).toBe(join("test", "reference", "unet-sd15", "unet"));
    expect(model.config).toHaveProperty("cross_attention_dim");
    expect(model.weights).toHaveLength(1);
    expect(model.weights[0]!.entries.get("conv_in.weight")).toMatchObject({ dtype: "F32" });
  });

  it("reads shards", async () => {
    const dir = await folder(
      shards({ a: `${NAME}-00001-of-00002.safetensors`, b: `${NAME}-00002-of-00002.safetensors` }),
    );
    const { weights } = await open(dir);
    expect(weights.map((file) => [...file.entries.keys()])).toEqual([["a"], ["b"]]);
  });

  it("prefers the variant that is asked for, and takes the plain weights where there is none", async () => {
    const both = await folder({ "config.json": "{}", [`${NAME}.safetensors`]: A, [`${NAME}.fp16.safetensors`]: B });
    const keys = async (dir: string, variant?: string) => [
      ...(await open(dir, { variant })).weights[0]!.entries.keys(),
    ];
    expect(await keys(both)).toEqual(["a"]);
    expect(await keys(both, "fp16")).toEqual(["b"]);
    expect(await keys(both, "bf16")).toEqual(["a"]);
    const sharded = await folder({
      "config.json": "{}",
      [`${NAME}.safetensors.index.fp16.json`]: index({ a: "x.fp16.safetensors" }),
      "x.fp16.safetensors": A,
    });
    expect(await keys(sharded, "fp16")).toEqual(["a"]);
  });

  it("names pickled weights where there are no safetensors, with what their index says", async () => {
    const single = await folder({ "config.json": "{}", "pytorch_model.bin": "" });
    expect(await open(single, { weightsName: "model" })).toMatchObject({
      weights: [],
      pickled: [{ path: join(single, "pytorch_model.bin"), tensors: undefined }],
    });
    const sharded = await folder({
      "config.json": "{}",
      [`${NAME}.bin.index.json`]: index({ a: "x-00001-of-00002.bin", b: "x-00002-of-00002.bin" }),
    });
    expect((await open(sharded)).pickled.map(({ tensors }) => [...tensors!])).toEqual([["a"], ["b"]]);
    const escaping = await folder({ "config.json": "{}", [`${NAME}.bin.index.json`]: index({ a: "../x.bin" }) });
    await expect(open(escaping)).rejects.toThrow(/must name \.bin files of its own folder; "a" has "\.\.\/x/);
    const both = await folder({ "config.json": "{}", [`${NAME}.safetensors`]: A, [`${NAME}.bin`]: "" });
    expect((await open(both)).pickled).toEqual([]);
  });

  it("takes a text encoder's names", async () => {
    const dir = await folder({ "config.json": '{"architectures": ["CLIPTextModel"]}', "model.safetensors": A });
    const options = { weightsName: "model", expectedClass: ["CLIPTextModel", "CLIPTextModelWithProjection"] };
    expect((await open(dir, options)).weights).toHaveLength(1);
  });

  const cases: [string, Record<string, string | Uint8Array>, ModelFolderOptions, RegExp][] = [
    ["a folder without config.json", { "notes.txt": "" }, {}, /no config\.json; it holds notes\.txt\. Name a model/],
    ["an empty folder", {}, {}, /it holds nothing/],
    ["a pipeline's folder", { "model_index.json": "{}" }, {}, /whole pipeline.*subfolder/],
    [
      "a missing subfolder",
      { "model_index.json": "{}" },
      { subfolder: "unet" },
      /unet: there is no such folder\. .* holds model_index\.json/,
    ],
    ["a subfolder that is a file", { unet: "" }, { subfolder: "unet" }, /is a file, but a model is a folder/],
    ["a config that is no JSON", { "config.json": "{" }, {}, /config\.json: is not valid JSON/],
    ["a config that is no object", { "config.json": "[]" }, {}, /must hold a JSON object/],
    [
      "another class",
      { "config.json": CONFIG },
      { expectedClass: ["AutoencoderKL", "AutoencoderTiny"] },
      /must describe a AutoencoderKL or AutoencoderTiny; got _class_name "UNet2DConditionModel"/,
    ],
    [
      "no class",
      { "config.json": "{}" },
      { expectedClass: "AutoencoderKL" },
      /got neither _class_name nor architectures/,
    ],
    [
      "no weights",
      { "config.json": "{}" },
      {},
      /has no diffusion_pytorch_model\.safetensors; it holds config\.json\. Fetch/,
    ],
    ["pickles of other names", { "config.json": "{}", "model.ckpt": "" }, {}, /convert them to safetensors/],
    ["only a variant", { "config.json": "{}", [`${NAME}.fp16.safetensors`]: A }, {}, /Ask for the variant "fp16"/],
    [
      "damaged weights",
      { "config.json": "{}", [`${NAME}.safetensors`]: A.slice(0, -1) },
      {},
      /safetensors: .*truncated/,
    ],
    [
      "an index that is no JSON",
      { "config.json": "{}", [`${NAME}.safetensors.index.json`]: "" },
      {},
      /index\.json: is not valid JSON/,
    ],
    [
      "an index without map",
      { "config.json": "{}", [`${NAME}.safetensors.index.json`]: "{}" },
      {},
      /must hold a weight_map/,
    ],
    ["an empty index", shards({}), {}, /weight_map is empty/],
    ["a shard outside the folder", shards({ a: "../x.safetensors" }), {}, /own folder; "a" has "\.\.\/x/],
    ["a shard that is no string", shards({ a: 1 }), {}, /own folder; "a" has 1/],
    ["a missing shard", shards({ a: "gone.safetensors" }), {}, /gone\.safetensors: cannot be read: no such file/],
    [
      "a tensor missing in its shard",
      shards({ a: `${NAME}-00001-of-00002.safetensors`, c: `${NAME}-00001-of-00002.safetensors` }),
      {},
      /"c" should be in .*but is not/,
    ],
    ["a tensor the index does not know", shards({ c: `${NAME}-00001-of-00002.safetensors` }), {}, /"a" is in /],
  ];
  it.each(cases)("rejects %s", async (_, files, options, message) => {
    const failure = await open(await folder(files), options).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(FormatError);
    expect((failure as Error).message).toMatch(message);
  });

  it("rejects a missing folder", async () => {
    await expect(open(join(root, "none"))).rejects.toThrow(/none: there is no such folder/);
  });
});

describe("readJson", () => {
  it("reads JSON and rejects text that is not UTF-8", async () => {
    const dir = await folder({ "a.json": '{"x": [1]}', "b.json": Uint8Array.of(0x22, 0xff, 0x22) });
    expect(await readJson(join(dir, "a.json"))).toEqual({ x: [1] });
    await expect(readJson(join(dir, "b.json"))).rejects.toThrow(FormatError);
    await expect(readJson(join(dir, "c.json"))).rejects.toThrow(/c\.json: cannot be read: no such file/);
  });
});
