import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { UNet2DConditionModel } from "../../models/index.js";
import { readSafetensors, writeSafetensors } from "../../storage/index.js";
import "../../storage/node.js";
import "../../runtime/node.js";
import { type Tensor, toBytes } from "../../tensor/tensor.js";
import { readFeRAAdapter } from "../adapter-format.js";
import { FeRAModel, freezeGates, type PlainLoraFormat, writePlainLora } from "../index.js";

const GOLDEN = "test/reference/lora-export";
/** As the loaders were held to; see test/parity/check-lora-export.py. */
const TOLERANCE = 2e-4;
const FILES = {
  kohya: "lora.safetensors",
  diffusers: "pytorch_lora_weights.safetensors",
  peft: "adapter_model.safetensors",
};

let dir: string;
let golden: Map<string, Tensor>;
let cases: Record<string, { gates: number[]; layers: number; digests: Record<PlainLoraFormat, string> }>;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-lora-"));
  const { tensors, metadata } = await readSafetensors(`${GOLDEN}/expected.safetensors`);
  golden = tensors;
  cases = JSON.parse(metadata.cases!);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const adapterOf = (family: string) => readFeRAAdapter(`${GOLDEN}/adapter-${family}.safetensors`);

function digest(tensors: ReadonlyMap<string, Tensor>): string {
  const hash = createHash("sha256");
  for (const name of [...tensors.keys()].sort()) {
    const value = tensors.get(name)!;
    hash.update(`${name}[${value.shape.join(",")}]`).update(toBytes(value));
  }
  return hash.digest("hex");
}

function relativeError(a: Tensor, b: Tensor): number {
  let [error, size] = [0, 0];
  (b.data as Float32Array).forEach((value, i) => {
    error += ((a.data as Float32Array)[i]! - value) ** 2;
    size += value ** 2;
  });
  return Math.sqrt(error / size);
}

describe.each(["sd15", "sdxl"])("an adapter on every linear layer of %s", (family) => {
  it.each(["kohya", "diffusers", "peft"] as const)("is written tensor by tensor as %s loaded it", async (to) => {
    const path = join(dir, `${family}-${to}${to === "kohya" ? ".safetensors" : ""}`);
    await writePlainLora(path, await adapterOf(family), cases[family]!.gates, { to });
    const { tensors } = await readSafetensors(to === "kohya" ? path : join(path, FILES[to]));
    expect(tensors.size).toBe(cases[family]!.layers * (to === "kohya" ? 3 : 2));
    expect(digest(tensors)).toBe(cases[family]!.digests[to]);
    if (to !== "peft") return;
    const config = JSON.parse(await readFile(join(path, "adapter_config.json"), "utf8"));
    expect(config).toMatchObject({ peft_type: "LORA", r: 4, lora_alpha: 4 });
    expect(config.target_modules).toHaveLength(cases[family]!.layers);
  });

  it("predicts with frozen gates what PEFT and diffusers predict with the file", async () => {
    const fera = new FeRAModel(await UNet2DConditionModel.fromPretrained(`test/reference/unet-${family}/unet`));
    const value = (name: string) => golden.get(`${family}.${name}`)!;
    fera.useAdapter(freezeGates(await adapterOf(family), cases[family]!.gates));
    const inputs = {
      latents: value("latents"),
      timesteps: value("timesteps"),
      encoderHiddenStates: value("encoder_hidden_states"),
      ...(golden.has(`${family}.text_embeds`) && {
        addedConditions: { textEmbeds: value("text_embeds"), timeIds: value("time_ids") },
      }),
    };
    const output = await fera.predict(inputs);
    expect(relativeError(output, value("output"))).toBeLessThan(TOLERANCE);
    const base = await fera.predict({ ...inputs, adapters: false });
    expect(relativeError(base, value("output"))).toBeGreaterThan(0.1);
    await fera.release();
    await fera.model.release();
  });
});

describe("a plain LoRA", () => {
  it("carries gates, configuration and kohya's own metadata", async () => {
    const adapter = await adapterOf("sd15");
    const path = join(dir, "metadata.safetensors");
    await writePlainLora(path, adapter, [0.25, 0.75], { to: "kohya" });
    const { metadata, tensors } = await readSafetensors(path);
    expect(metadata).toMatchObject({ ss_network_module: "networks.lora", ss_network_dim: "4", ss_network_alpha: "4" });
    expect(JSON.parse(metadata.fera_frozen_gates!)).toMatchObject({ gates: [0.25, 0.75], config: { alpha: 3 } });
    const name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";
    expect(tensors.get(`${name}.alpha`)).toMatchObject({ shape: [], data: Float32Array.of(4) });
  });

  it("is refused for other gates, paths and layers than it can have", async () => {
    const adapter = await adapterOf("sd15");
    const write = (path: string, gates: number[], to: PlainLoraFormat, options = {}) =>
      writePlainLora(join(dir, path), adapter, gates, { to, ...options });
    await expect(write("a.safetensors", [1], "kohya")).rejects.toThrow(/must be 2 finite numbers.*got 1\./);
    await expect(write("a.safetensors", [1, Number.NaN], "kohya")).rejects.toThrow(/got 1, NaN/);
    await expect(write("a", [1, 0], "kohya")).rejects.toThrow(/must end in \.safetensors/);
    await expect(write("a.safetensors", [1, 0], "peft")).rejects.toThrow(/PEFT's format is a folder/);
    await expect(write("a.bin", [1, 0], "diffusers")).rejects.toThrow(/as safetensors or into a folder/);
    const strange = join(dir, "strange.safetensors");
    const { tensors, metadata } = await readSafetensors(`${GOLDEN}/adapter-sd15.safetensors`);
    const renamed = [...tensors].map(([name, value]) => [name.replace("mid_block", "middle"), value] as const);
    const config = { ...JSON.parse(metadata.fera_config!), target_modules: ["x"] };
    await writeSafetensors(strange, new Map(renamed), { fera_config: JSON.stringify(config) });
    const options = { to: "kohya", naming: "original" } as const;
    await expect(
      writePlainLora(join(dir, "b.safetensors"), await readFeRAAdapter(strange), [1, 0], options),
    ).rejects.toThrow(/middle\.attentions\.0.*no name for this layer/);
  });
});
