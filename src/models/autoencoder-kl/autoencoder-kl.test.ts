import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { checkGradients } from "../../../test/support/check-gradients.js";
import { relativeError } from "../../../test/support/relative-error.js";
import { ConfigError, FormatError, ShapeError } from "../../errors.js";
import { add, type Value } from "../../graph/index.js";
import { type ParameterSource, Scope } from "../../nn/index.js";
import { readSafetensors, writeSafetensors } from "../../storage/index.js";
import { Generator, randn } from "../../tensor/random.js";
import { type Tensor, zeros } from "../../tensor/tensor.js";
import "../../storage/node.js";
import { AutoencoderKL } from "./autoencoder-kl.js";
import { decodeKl, encodeKl } from "./kl-autoencoder.js";

const FOLDER = "test/reference/vae-kl";
/** Relative L2 distance between two float32 implementations. */
const TOLERANCE = 2e-5;

const tiny = {
  down_block_types: ["DownEncoderBlock2D", "DownEncoderBlock2D"],
  up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D"],
  block_out_channels: [4, 6],
  norm_num_groups: 2,
  latent_channels: 2,
};

async function expectGoldenValues(model: AutoencoderKL) {
  const { tensors } = await readSafetensors(`${FOLDER}/expected.safetensors`);
  const values = (name: string) => tensors.get(name)!.data as Float32Array;
  const { mean, logvar } = await model.encode(tensors.get("image")!);
  expect(mean.shape).toEqual(tensors.get("mean")!.shape);
  expect(relativeError(mean.data, values("mean"))).toBeLessThan(TOLERANCE);
  expect(relativeError(logvar.data, values("logvar"))).toBeLessThan(TOLERANCE);
  const decoded = await model.decode(tensors.get("mean")!);
  expect(decoded.shape).toEqual(tensors.get("decoded")!.shape);
  expect(relativeError(decoded.data, values("decoded"))).toBeLessThan(TOLERANCE);
  await model.release();
}

describe("golden values", () => {
  it("agrees with diffusers on mean, logvar and the decoded image", async () => {
    const model = await AutoencoderKL.fromPretrained(FOLDER, { subfolder: "vae" });
    expect(model.downscale).toBe(2);
    expect(model.config.scaling_factor).toBe(0.18215);
    expect(model.config.shift_factor).toBe(0);
    await expectGoldenValues(model);
  });

  it("reads checkpoints that name the attention's layers query, key, value and proj_attn", async () => {
    const { tensors } = await readSafetensors(`${FOLDER}/vae/diffusion_pytorch_model.safetensors`);
    const older: [RegExp, string][] = [
      [/\.to_q\./, ".query."],
      [/\.to_k\./, ".key."],
      [/\.to_v\./, ".value."],
      [/\.to_out\.0\./, ".proj_attn."],
    ];
    const renamed = new Map(
      [...tensors].map(([name, value]) => [older.reduce((now, [from, to]) => now.replace(from, to), name), value]),
    );
    expect(renamed.has("encoder.mid_block.attentions.0.proj_attn.weight")).toBe(true);
    const dir = await mkdtemp(join(tmpdir(), "fera-vae-"));
    try {
      await writeFile(join(dir, "config.json"), await readFile(`${FOLDER}/vae/config.json`));
      await writeSafetensors(join(dir, "diffusion_pytorch_model.safetensors"), renamed);
      await expectGoldenValues(await AutoencoderKL.fromPretrained(dir));
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});

it("makes fresh weights under the checkpoint's names", async () => {
  const { tensors } = await readSafetensors(`${FOLDER}/vae/diffusion_pytorch_model.safetensors`);
  const { weights } = AutoencoderKL.fromConfig(tiny, new Generator(0)).weights;
  expect([...weights.keys()].sort()).toEqual([...tensors.keys()].sort());
});

it("leaves out quantization layers and attention where the configuration does", async () => {
  const config = { ...tiny, use_quant_conv: false, use_post_quant_conv: false, mid_block_add_attention: false };
  const model = AutoencoderKL.fromConfig(config, new Generator(0));
  expect([...model.weights.weights.keys()].filter((name) => /quant_conv|attentions/.test(name))).toEqual([]);
  const { mean } = await model.encode(randn([1, 3, 4, 6], { generator: new Generator(1) }));
  expect(mean.shape).toEqual([1, 2, 2, 3]);
  expect((await model.decode(mean)).shape).toEqual([1, 3, 4, 6]);
  await model.release();
});

it("keeps logvar within -30 and 20", async () => {
  const model = AutoencoderKL.fromConfig(tiny, new Generator(0));
  const bias = (model.weights.weights.get("quant_conv.bias") as { tensor: Tensor<"float32"> }).tensor.data;
  bias.set([0, 0, 100, -100]);
  const { logvar } = await model.encode(zeros([1, 3, 2, 2]));
  expect([...logvar.data]).toEqual([20, -30]);
  await model.release();
});

describe("gradients agree with finite differences", () => {
  const { config, weights } = AutoencoderKL.fromConfig(tiny, new Generator(0));
  /** The model's weights, except for those that are given. */
  const scopeWith = (given: Record<string, Value>): Scope => {
    const source: ParameterSource = {
      parameter: (graph, path, shape) => given[path] ?? weights.parameter(graph, path, shape),
    };
    return new Scope(Object.values(given)[0]!.graph, source);
  };

  it("encoder, in the image and in weights", async () => {
    await checkGradients({
      inputs: {
        image: [1, 3, 4, 4],
        "encoder.down_blocks.0.downsamplers.0.conv.weight": [4, 4, 3, 3],
        "encoder.mid_block.attentions.0.to_q.weight": [6, 6],
        "encoder.mid_block.attentions.0.to_v.weight": [6, 6],
        "encoder.conv_out.weight": [4, 6, 3, 3],
      },
      build: (values) => {
        const { mean, logvar } = encodeKl(scopeWith(values), values.image!, config);
        return add(mean, logvar);
      },
    });
  });

  it("decoder, in the latents and in weights", async () => {
    await checkGradients({
      inputs: {
        latents: [1, 2, 2, 2],
        "decoder.mid_block.attentions.0.to_k.weight": [6, 6],
        "decoder.mid_block.attentions.0.to_out.0.weight": [6, 6],
        "decoder.up_blocks.0.upsamplers.0.conv.weight": [6, 6, 3, 3],
        "decoder.conv_out.weight": [3, 4, 3, 3],
      },
      build: (values) => decodeKl(scopeWith(values), values.latents!, config),
    });
  });
});

describe("refuses by name", () => {
  const make = (change: object) => () => AutoencoderKL.fromConfig({ ...tiny, ...change }, new Generator(0));

  it("blocks that are not supported", () => {
    const types = ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"];
    expect(make({ down_block_types: types })).toThrow(/down_block_types\.1: .*"AttnDownEncoderBlock2D"/);
    expect(make({ down_block_types: types })).toThrow(ConfigError);
  });

  for (const [option, value] of [
    ["up_block_types", ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"]],
    ["act_fn", "gelu"],
    ["latents_mean", [0, 0]],
    ["latents_std", [1, 1]],
    ["scaling_factor", -1],
    ["sample_size", 0],
    ["tiling", true],
  ] as const) {
    it(`${option} = ${JSON.stringify(value)}`, () => {
      const came = JSON.stringify(option === "up_block_types" ? value[1] : value);
      expect(make({ [option]: value })).toThrow(ConfigError);
      expect(make({ [option]: value })).toThrow(option);
      expect(make({ [option]: value })).toThrow(came);
    });
  }

  it("block types of another number than the block widths", () => {
    expect(make({ up_block_types: ["UpDecoderBlock2D"] })).toThrow(/up_block_types: must be as many/);
  });

  it("groups that do not divide the channels", () => {
    expect(make({ norm_num_groups: 5 })).toThrow(/conv_norm_out|norm1/);
  });

  it("images whose sides the downscale does not divide, and other channels", async () => {
    const model = make({})();
    await expect(model.encode(zeros([1, 3, 5, 4]))).rejects.toThrow(/multiples of 2; got float32 \[1,3,5,4\]/);
    await expect(model.encode(zeros([1, 4, 4, 4]))).rejects.toThrow(ShapeError);
    await expect(model.decode(zeros([1, 4, 4, 4]))).rejects.toThrow(/latents must be \[B, 2, H, W\]/);
  });

  it("another model's folder", async () => {
    await expect(AutoencoderKL.fromPretrained("test/reference/vae-tiny", { subfolder: "vae" })).rejects.toThrow(
      FormatError,
    );
  });
});
