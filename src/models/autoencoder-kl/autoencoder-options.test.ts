// Tiling, sampling and half-precision checkpoints of both autoencoders against diffusers (test/parity/make-vae-golden.py).

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import { ConfigError } from "../../errors.js";
import { readSafetensors } from "../../storage/index.js";
import "../../runtime/node.js";
import { float32ToFloat16 } from "../../tensor/float16.js";
import { Generator, randn } from "../../tensor/random.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import { AutoencoderTiny } from "../autoencoder-tiny/autoencoder-tiny.js";
import { AutoencoderKL } from "./autoencoder-kl.js";
import { sampleLatents } from "./kl-autoencoder.js";
import "../../storage/node.js";

/** Relative L2 distance between two float32 implementations. */
const TOLERANCE = 2e-5;
const { tensors: expected, metadata } = await readSafetensors("test/reference/vae-options/expected.safetensors");
const drawn = JSON.parse(metadata.inputs!) as Record<string, { seed: number; shape: number[] }>;
const tiling = JSON.parse(metadata.tiling!) as Record<string, [number, number]>;
const input = (name: string): Tensor<"float32"> =>
  randn(drawn[name]!.shape, { generator: new Generator(drawn[name]!.seed) });
const optionsOf = (name: string) => ({ tileSampleMinSize: tiling[name]![0], tileOverlapFactor: tiling[name]![1] });

const kl = await AutoencoderKL.fromPretrained("test/reference/vae-kl", { subfolder: "vae" });
const tiny = await AutoencoderTiny.fromPretrained("test/reference/vae-tiny", { subfolder: "vae" });
afterAll(async () => {
  await kl.release();
  await tiny.release();
});

function expectAgrees(name: string, came: Tensor): void {
  const { shape, data } = expected.get(name)!;
  expect(came.shape, name).toEqual(shape);
  expect(relativeError(came.data as Float32Array, data as Float32Array), name).toBeLessThan(TOLERANCE);
}

describe("tiles agree with diffusers", () => {
  it("AutoencoderKL, whose tiles fade into each other", async () => {
    const image = input("kl.image");
    const whole = await kl.encode(image);
    kl.enableTiling(optionsOf("kl"));
    const { mean, logvar } = await kl.encode(image);
    expectAgrees("kl.mean", mean);
    expectAgrees("kl.logvar", logvar);
    expectAgrees("kl.decoded", await kl.decode(input("kl.latents")));
    expect(relativeError(mean.data, whole.mean.data)).toBeGreaterThan(TOLERANCE);
    kl.disableTiling();
    expect(await kl.encode(image)).toEqual(whole);
  });

  it("AutoencoderTiny, whose tiles are laid over each other", async () => {
    tiny.enableTiling(optionsOf("tiny"));
    expectAgrees("tiny.encoded", (await tiny.encode(input("tiny.image"))).latents);
    expectAgrees("tiny.decoded", await tiny.decode(input("tiny.latents")));
    tiny.disableTiling();
  });
});

describe("tiling", () => {
  it("leaves what fits into one tile as it is", async () => {
    const image = randn([1, 3, 16, 16], { generator: new Generator(0) });
    const latents = randn([1, 4, 8, 8], { generator: new Generator(1) });
    const whole = [await kl.encode(image), await kl.decode(latents)];
    kl.enableTiling(optionsOf("kl"));
    expect([await kl.encode(image), await kl.decode(latents)]).toEqual(whole);
    kl.disableTiling();
  });

  it("takes the tile from sample_size, and a quarter of it for the overlap", async () => {
    const latents = randn([1, 4, 16, 18], { generator: new Generator(1) });
    kl.enableTiling();
    const usual = await kl.decode(latents);
    kl.enableTiling({ tileSampleMinSize: 32, tileOverlapFactor: 0.25 });
    expect(await kl.decode(latents)).toEqual(usual);
    kl.disableTiling();
  });

  it("without overlap puts tiles beside each other", async () => {
    const latents = randn([1, 4, 4, 12], { generator: new Generator(2) });
    kl.enableTiling({ tileSampleMinSize: 8, tileOverlapFactor: 0 });
    const decoded = await kl.decode(latents);
    kl.disableTiling();
    const columns = (x: Tensor, from: number, to: number) =>
      Array.from({ length: x.size / x.shape[3]! }, (_, row) => [
        ...(x.data as Float32Array).subarray(row * x.shape[3]! + from, row * x.shape[3]! + to),
      ]).flat();
    const last = await kl.decode(tensor(columns(latents, 8, 12), [1, 4, 4, 4]));
    expect(columns(decoded, 16, 24)).toEqual([...last.data]);
  });

  it("refuses tiles and overlaps that are not whole latent pixels", () => {
    expect(() => kl.enableTiling({ tileSampleMinSize: 15 })).toThrow(/tileSampleMinSize must be a multiple of 2.*15/);
    expect(() => kl.enableTiling({ tileSampleMinSize: 0 })).toThrow(ConfigError);
    expect(() => kl.enableTiling({ tileSampleMinSize: 12 })).toThrow(/tileOverlapFactor.*tiles of 6; got 0.25/);
    expect(() => kl.enableTiling({ tileOverlapFactor: 1 })).toThrow(/tileOverlapFactor/);
    expect(() => kl.enableTiling({ tileOverlapFactor: Number.NaN })).toThrow(/tileOverlapFactor/);
    expect(() => tiny.enableTiling({ tileSampleMinSize: 64 })).toThrow(/from 2 to 7 with tiles of 8; got 0.125/);
  });
});

describe("sampleLatents draws what latent_dist.sample draws", () => {
  for (const name of ["sample", "small"]) {
    it(`${expected.get(`${name}.latents`)!.size} latents`, async () => {
      const generator = new Generator(JSON.parse(metadata.noiseSeed!));
      expectAgrees(`${name}.latents`, sampleLatents(await kl.encode(input(`${name}.image`)), { generator }));
    });
  }
});

describe("half-precision checkpoints are computed in float32", () => {
  for (const dtype of ["float16", "bfloat16"] as const) {
    it(dtype, async () => {
      const dir = await mkdtemp(join(tmpdir(), "fera-vae-"));
      try {
        await writeFile(join(dir, "config.json"), await readFile("test/reference/vae-kl/vae/config.json"));
        const { tensors } = await readSafetensors("test/reference/vae-kl/vae/diffusion_pytorch_model.safetensors");
        await writeFile(join(dir, "diffusion_pytorch_model.safetensors"), halfFile(tensors, dtype));
        const model = await AutoencoderKL.fromPretrained(dir);
        const { mean } = await model.encode(input("sample.image"));
        expectAgrees(`${dtype}.mean`, mean);
        expectAgrees(`${dtype}.decoded`, await model.decode(mean));
        const { mean: full } = await kl.encode(input("sample.image"));
        expect(relativeError(mean.data, full.data)).toBeGreaterThan(TOLERANCE);
        await model.release();
      } finally {
        await rm(dir, { recursive: true });
      }
    });
  }

  /** A safetensors file; bfloat16 is a stored form only, which tensors do not have. */
  function halfFile(tensors: ReadonlyMap<string, Tensor>, dtype: "float16" | "bfloat16"): Uint8Array {
    const header: Record<string, unknown> = {};
    const parts: Uint16Array[] = [];
    let offset = 0;
    for (const [name, { shape, data }] of tensors) {
      const bits = dtype === "float16" ? float32ToFloat16(data as Float32Array) : toBfloat16(data as Float32Array);
      const stored = dtype === "float16" ? "F16" : "BF16";
      header[name] = { dtype: stored, shape, data_offsets: [offset, offset + bits.byteLength] };
      parts.push(bits);
      offset += bits.byteLength;
    }
    const json = new TextEncoder().encode(JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(json.length));
    return Buffer.concat([length, json, ...parts.map((part) => new Uint8Array(part.buffer))]);
  }

  /** The upper half of each float32, rounded to the nearest, ties to even. */
  function toBfloat16(values: Float32Array): Uint16Array {
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
    return Uint16Array.from(bits, (each) => (each + 0x7fff + ((each >>> 16) & 1)) >>> 16);
  }
});
