// Single files of transformers under flow matching: test/parity/make-flow-single-file-golden.py, and the tiny pipelines renamed.

import { readFileSync } from "node:fs";
import { cp, mkdtemp, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../test/support/relative-error.js";
import "../runtime/node.js";
import "../storage/node.js";
import {
  AutoencoderKL,
  CLIPTextModelWithProjection,
  Flux2Transformer2DModel,
  FluxTransformer2DModel,
  SD3Transformer2DModel,
  T5EncoderModel,
  ZImageTransformer2DModel,
} from "../models/index.js";
import type { PretrainedOptions } from "../models/pretrained.js";
import type { FlowFamily } from "../storage/flow-names.js";
import { readSafetensors, type Safetensors, writeSafetensors } from "../storage/index.js";
import { Generator } from "../tensor/random.js";
import { Tensor, tensor, toBytes, zeros } from "../tensor/tensor.js";
import { FluxPipeline } from "./flux/flux-pipeline.js";
import { loadPipeline } from "./load-pipeline.js";

const FILES = "test/reference/single-file";
const PIPELINES = "test/reference/pipelines";
const CLASSES = { FluxTransformer2DModel, Flux2Transformer2DModel, SD3Transformer2DModel, ZImageTransformer2DModel };
type Floats = Map<string, Tensor<"float32">>;

let root: string;
let sd3Config: string;
let expected: Safetensors;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "fera-flow-single-"));
  expected = await readSafetensors(`${FILES}/flow-expected.safetensors`);
  // As the script changes it: such files go without CLIP L's projection, which is then as wide as its states.
  sd3Config = join(root, "sd3-config");
  await cp(`${PIPELINES}/stable-diffusion-3`, sd3Config, { recursive: true });
  await change(join(sd3Config, "text_encoder/config.json"), { projection_dim: 8 });
  await change(join(sd3Config, "transformer/config.json"), { pooled_projection_dim: 18 });
});
afterAll(() => rm(root, { recursive: true, force: true }));

async function change(path: string, values: Record<string, unknown>): Promise<void> {
  await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, "utf8")), ...values }));
}

const values = (name: string) => expected.tensors.get(name) as Tensor<"float32">;

describe("a transformer's original file gives what diffusers' converter and model give", () => {
  it.each([
    ["flux", FluxTransformer2DModel, `${PIPELINES}/flux`, { guidance: tensor([3.5]) }],
    ["flux2-klein", Flux2Transformer2DModel, `${PIPELINES}/flux2-klein`, {}],
    ["stable-diffusion-3", SD3Transformer2DModel, undefined, {}],
  ] as const)("%s", async (name, of, config, more) => {
    const path = `${FILES}/${name}.safetensors`;
    for (const dtype of ["float32", "auto"] as const) {
      const model = await of.fromSingleFile(path, { config: config ?? sd3Config, dtype });
      const given = ["latents", "encoderHiddenStates", "pooledProjections"].filter((each) => values(`${name}.${each}`));
      const inputs = Object.fromEntries(given.map((each) => [each, values(`${name}.${each}`)]));
      const output = await model.predict({ ...inputs, ...more, timesteps: tensor([600]) } as never);
      expect(relativeError(output.data, values(`${name}.output`).data)).toBeLessThan(2e-4);
      await model.dispose();
    }
  });

  it("Stable Diffusion 3's encoders and autoencoder in the same file, too", async () => {
    const path = `${FILES}/stable-diffusion-3.safetensors`;
    const of = (subfolder: string): PretrainedOptions => ({ config: sd3Config, subfolder });
    const ids = tensor(BigInt64Array.of(1n, 5n, 7n, 2n), [1, 4], "int64");
    for (const part of ["text_encoder", "text_encoder_2"]) {
      const clip = await CLIPTextModelWithProjection.fromPretrained(path, of(part));
      const { pooled } = await clip.encodeAll(ids);
      expect(relativeError(pooled.data, values(`stable-diffusion-3.${part}`).data)).toBeLessThan(1e-5);
      await clip.dispose();
    }
    const t5 = await T5EncoderModel.fromPretrained(path, of("text_encoder_3"));
    const states = await t5.encode(ids);
    expect(relativeError(states.data, values("stable-diffusion-3.text_encoder_3").data)).toBeLessThan(1e-5);
    const vae = await AutoencoderKL.fromPretrained(path, of("vae"));
    const image = await vae.decode(values("stable-diffusion-3.latents.vae"));
    expect(relativeError(image.data, values("stable-diffusion-3.vae").data)).toBeLessThan(1e-5);
    for (const model of [t5, vae]) await model.dispose();
  });
});

/** [name, original, first row, rows], as diffusers' converters pair them: test/parity/make-flow-names-golden.py. */
type Names = [string, string, number, number | "swapped" | null][];
const names = JSON.parse(readFileSync("test/reference/flow-names.json", "utf8")) as Record<
  FlowFamily,
  { config: Record<string, unknown>; names: Names }
>;

/** A model's weights as the original code has them. */
function original(family: FlowFamily, weights: ReadonlyMap<string, Tensor<"float32">>, prefix = ""): Floats {
  const rows = new Map<string, [number, Tensor<"float32">][]>();
  for (const [name, old, first, count] of names[family].names) {
    const value = weights.get(name)!;
    const half = value.size / 2;
    const data = count === "swapped" ? value.data.map((_, i) => value.data[(i + half) % value.size]!) : value.data;
    rows.set(old, [...(rows.get(old) ?? []), [first, new Tensor("float32", value.shape, data)]]);
  }
  return new Map(
    [...rows].map(([old, parts]) => {
      const sorted = parts.sort(([a], [b]) => a - b).map(([, part]) => part);
      const shape = [sorted.reduce((sum, part) => sum + part.shape[0]!, 0), ...sorted[0]!.shape.slice(1)];
      const data = new Float32Array(shape.reduce((product, size) => product * size, 1));
      let at = 0;
      for (const part of sorted) {
        data.set(part.data, at);
        at += part.size;
      }
      return [prefix + old, new Tensor("float32", shape, data)];
    }),
  );
}

const fresh = (family: FlowFamily, config: Record<string, unknown> = {}) =>
  CLASSES[family].fromConfig({ ...names[family].config, ...config }, new Generator(1));

const tensorsOf = (model: ReturnType<typeof fresh>): Floats =>
  new Map([...model.weights.weights].map(([name, weight]) => [name, (weight as { tensor: Tensor<"float32"> }).tensor]));

describe("a transformer's file under the original names", () => {
  it.each([
    ["FluxTransformer2DModel", ""],
    ["FluxTransformer2DModel", "model.diffusion_model."],
    ["Flux2Transformer2DModel", ""],
    ["SD3Transformer2DModel", ""],
    ["ZImageTransformer2DModel", "model.diffusion_model."],
  ] as const)("is its folder again, weight for weight: %s %s", async (family, prefix) => {
    const weights = tensorsOf(fresh(family));
    const path = join(root, `${family}.safetensors`);
    const extra = family === "ZImageTransformer2DModel" ? [[`${prefix}norm_final.weight`, zeros([4])] as const] : [];
    await writeSafetensors(path, new Map([...original(family, weights, prefix), ...extra]));
    const config = join(root, family);
    await cp(`${PIPELINES}/flux/model_index.json`, join(config, "model_index.json"));
    await cp(`${PIPELINES}/flux/transformer`, join(config, "transformer"), { recursive: true });
    await writeFile(join(config, "transformer/config.json"), JSON.stringify(names[family].config));
    const loaded = await CLASSES[family].fromSingleFile(path, { config });
    const found = new Map(loaded.weights.weights);
    expect([...found.keys()].sort()).toEqual([...weights.keys()].sort());
    const file = await readFile(path);
    for (const [name, value] of weights) {
      const weight = found.get(name)!;
      const { offset = 0, length = 0 } = "range" in weight ? weight.range : {};
      const bytes = "tensor" in weight ? toBytes(weight.tensor) : file.subarray(offset, offset + length);
      expect([name, weight.shape, Buffer.from(bytes).equals(toBytes(value))]).toEqual([name, value.shape, true]);
    }
    // Only scale and shift of norms, which stand in the other order, are copied.
    const copied = [...found].filter(([, weight]) => "tensor" in weight).map(([name]) => name);
    expect(copied.every((name) => /^norm_out\.linear|norm1_context\.linear/.test(name))).toBe(true);
  });

  it.each([
    ["FluxTransformer2DModel", { attention_head_dim: 128, num_attention_heads: 1, axes_dims_rope: [16, 56, 56] }],
    [
      "FluxTransformer2DModel",
      {
        attention_head_dim: 128,
        num_attention_heads: 1,
        axes_dims_rope: [16, 56, 56],
        guidance_embeds: false,
        num_layers: 2,
      },
    ],
    ["Flux2Transformer2DModel", { attention_head_dim: 128, num_attention_heads: 1, axes_dims_rope: [32, 32, 32, 32] }],
    ["SD3Transformer2DModel", { sample_size: 128 }],
    [
      "SD3Transformer2DModel",
      { sample_size: 128, qk_norm: null, attention_head_dim: 64, num_attention_heads: 1, caption_projection_dim: 64 },
    ],
    [
      "ZImageTransformer2DModel",
      { dim: 256, n_heads: 2, n_kv_heads: 2, axes_dims: [32, 48, 48], axes_lens: [1536, 512, 512] },
    ],
  ] as const)("tells its configuration by shapes: %s %o", async (family, changes) => {
    const model = fresh(family, changes);
    const path = join(root, "shapes.safetensors");
    const shapes = new Map([...model.weights.weights].map(([name, { shape }]) => [name, shape]));
    const known = new Set(names[family].names.map(([name]) => name));
    // What the tiny golden names lack, such as a second block, is named like the first.
    const table = new Map<string, Tensor<"float32">>(
      [...shapes].filter(([name]) => known.has(name)).map(([name, shape]) => [name, zeros(shape)]),
    );
    const all: Names = names[family].names.filter(([name]) => table.has(name));
    const tensors: Floats = new Map();
    for (const [name, old, , rows] of all) {
      const [own = 0, ...rest] = shapes.get(name)!;
      const before = tensors.get(old)?.shape[0] ?? 0;
      tensors.set(old, zeros([rows === "swapped" ? own : before + own, ...rest]));
    }
    if ("num_layers" in changes) {
      for (const [old, value] of [...tensors]) {
        if (old.startsWith("double_blocks.0.")) tensors.set(old.replace(".0.", ".1."), value);
      }
    }
    await writeSafetensors(path, tensors);
    const loaded = await CLASSES[family].fromSingleFile(path, { dryRun: true });
    const { _diffusers_version: _, _class_name: __, ...wanted } = model.config as unknown as Record<string, unknown>;
    expect(loaded.config).toEqual({
      ...wanted,
      out_channels: (loaded.config as { out_channels?: number }).out_channels,
    });
  });

  it("is refused where its heads are those of no published model, with what to give", async () => {
    await expect(FluxTransformer2DModel.fromSingleFile(`${FILES}/flux.safetensors`)).rejects.toThrow(
      /cannot be told from its tensors: its heads have 12 features.*Give `config`/,
    );
  });

  it("is refused by another family, with what it holds", async () => {
    await expect(SD3Transformer2DModel.fromSingleFile(`${FILES}/flux.safetensors`)).rejects.toThrow(
      /holds no SD3Transformer2DModel, but of a FLUX\.1 pipeline: transformer \(FluxTransformer2DModel\)/,
    );
  });

  it("with a tensor that the model has no place for is refused", async () => {
    const { tensors } = await readSafetensors(`${FILES}/flux.safetensors`);
    const path = join(root, "strange.safetensors");
    const strange = async (name: string) => {
      await writeSafetensors(path, new Map([...tensors, [name, zeros([1])]]));
      return FluxTransformer2DModel.fromSingleFile(path, { config: `${PIPELINES}/flux` });
    };
    await expect(strange("double_blocks.0.img_attn.qkv.lora")).rejects.toThrow(/there can be a weight and a bias/);
    await expect(strange("clip.weight")).rejects.toThrow(/"clip\.weight", which a FLUX\.1 has no place for/);
  });
});

describe("a pipeline from a transformer's file", () => {
  it("takes from `config` what the file does not hold", async () => {
    const folder = `${PIPELINES}/flux`;
    const { tensors } = await readSafetensors(`${folder}/transformer/diffusion_pytorch_model.safetensors`);
    const path = join(root, "flux1-tiny.safetensors");
    await writeSafetensors(path, original("FluxTransformer2DModel", tensors as Floats));
    const pipe = await FluxPipeline.fromSingleFile(path, { config: folder });
    const parts = [pipe.vae, pipe.textEncoder, pipe.textEncoder2].map(({ weights }) => weights.source);
    expect(parts).toEqual(["vae", "text_encoder", "text_encoder_2"].map((part) => join(folder, part)));
    const { range } = pipe.denoiser.weights.weights.get("proj_out.weight") as { range: { path: string } };
    expect(range.path).toBe(await realpath(path));
    await expect(loadPipeline(path)).rejects.toThrow(
      /holds of a FLUX\.1 pipeline: transformer\. Its tokenizers and scheduler, and its vae, text_encoder, text_encoder_2, are not in the file\. Give `config` \(--model-config/,
    );
    await expect(loadPipeline(path, { config: sd3Config })).rejects.toThrow(
      /of another family: its transformer is "SD3Transformer2DModel".*holds a FluxTransformer2DModel/,
    );
  });

  it("of Stable Diffusion 3 with all that it holds is loaded", async () => {
    const pipe = await loadPipeline(`${FILES}/stable-diffusion-3.safetensors`, { config: sd3Config });
    expect(pipe.constructor.name).toBe("StableDiffusion3Pipeline");
    expect(pipe.vae.weights.source).toContain("sd3-config");
    await pipe.release();
  });

  it("with scales beside weights in float8 is refused by their names", async () => {
    const { tensors } = await readSafetensors(`${FILES}/flux.safetensors`);
    const path = join(root, "scaled.safetensors");
    for (const name of ["scaled_fp8", "model.diffusion_model.scaled_fp8", "double_blocks.0.img_mlp.0.scale_weight"]) {
      await writeSafetensors(path, new Map([...tensors, [name, zeros([1])]]));
      await expect(FluxTransformer2DModel.fromSingleFile(path, { config: `${PIPELINES}/flux` })).rejects.toThrow(
        new RegExp(
          `quantized weights with scales beside them \\("${name}"\\).*bfloat16, float16, or float8 without scales`,
        ),
      );
    }
  });
});
