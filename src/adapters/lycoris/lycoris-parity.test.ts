// LoKr and LoHa against PEFT and LyCORIS: their files load, compute what they compute, and come back as they were.

import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { referenceBatch } from "../../../test/support/reference-batch.js";
import { relativeError } from "../../../test/support/relative-error.js";
import { UNet2DConditionModel } from "../../models/index.js";
import "../../runtime/node.js";
import { readSafetensors, writeSafetensors } from "../../storage/index.js";
import "../../storage/node.js";
import type { Tensor } from "../../tensor/tensor.js";
import { AdapterModel } from "../adapter-model.js";
import { fusedWeights } from "../lora/fuse-lora.js";
import { LoRAConfig } from "../lora/lora-config.js";

const REFERENCE = "test/reference/unet-sd15";
const GOLDEN = "test/reference/lycoris";
const OUTPUT_TOLERANCE = 2e-4;
const GRADIENT_TOLERANCE = 2e-3;
const CASES = [
  ...[
    "peft-lokr-linear",
    "peft-lokr-convolution",
    "peft-lokr-tucker",
    "peft-lokr-whole",
    "peft-loha",
    "peft-loha-tucker",
  ],
  ...["lycoris-lokr", "lycoris-lokr-tucker", "lycoris-lokr-whole", "lycoris-loha", "lycoris-loha-tucker"],
];

let unet: UNet2DConditionModel;
let batch: { latents: Tensor; timesteps: Tensor; encoderHiddenStates: Tensor; target: Tensor };
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fera-lycoris-"));
  unet = await UNet2DConditionModel.fromPretrained(`${REFERENCE}/unet`);
  batch = await referenceBatch(REFERENCE);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

it("every case of the golden files is tested", async () => {
  expect((await readdir(GOLDEN)).sort()).toEqual(CASES.map((name) => `${name}.safetensors`).sort());
});

/** The golden file of a case as its program saves it: PEFT a folder, LyCORIS one file. */
async function programsFile(name: string) {
  const { tensors, metadata } = await readSafetensors(`${GOLDEN}/${name}.safetensors`);
  const of = (kind: string) =>
    new Map(
      [...tensors].filter(([key]) => key.startsWith(`${kind}.`)).map(([key, t]) => [key.slice(kind.length + 1), t]),
    );
  const file = of("file");
  const layers = JSON.parse(metadata.layers!) as string[];
  const isPeft = name.startsWith("peft");
  const path = join(folder, isPeft ? name : `${name}.safetensors`);
  if (isPeft) {
    await mkdir(path);
    await writeSafetensors(`${path}/adapter_model.safetensors`, file);
    await writeFile(`${path}/adapter_config.json`, metadata.config!);
  } else await writeSafetensors(path, file);
  return { file, gradients: of("grad"), output: tensors.get("output")!, layers, path, isPeft };
}

describe.each(CASES)("%s", (name) => {
  it("loads; output and gradients are the program's; it comes back from fera's files in both formats", async () => {
    const { file, gradients, output, layers, path, isPeft } = await programsFile(name);
    const model: AdapterModel = new AdapterModel(unet, new LoRAConfig());
    await model.loadAdapters(path);
    expect(model.layers.map((layer) => layer.path).sort()).toEqual([...layers].sort());
    const found = await model.predict(batch);
    expect(relativeError(found.data, output.data as Float32Array)).toBeLessThan(OUTPUT_TOLERANCE);

    const [batchSize, , latentHeight, latentWidth] = batch.latents.shape as [number, number, number, number];
    const tokens = batch.encoderHiddenStates.shape[1]!;
    const step = await model.compileTrainStep({ batchSize, latentHeight, latentWidth, tokens });
    const computed = (await step.gradients(batch)).gradients;
    await step.release();
    const flat = (key: string) => key.replace(/^base_model\.model\.|^lora_unet_/, "").replaceAll(".", "_");
    const byName = new Map([...computed].map(([key, value]) => [flat(key), value]));
    expect([...byName.keys()].sort()).toEqual([...gradients.keys()].map(flat).sort());
    for (const [key, value] of gradients) {
      const error = relativeError(byName.get(flat(key))!.data as Float32Array, value.data as Float32Array);
      expect(error, key).toBeLessThan(GRADIENT_TOLERANCE);
    }

    // The other program's format is LyCORIS's file; PEFT's folder holds what PEFT can make.
    const again = [join(folder, `${name}-again.safetensors`)];
    if (isPeft) again.push(join(folder, `${name}-again`));
    for (const target of again) {
      await model.saveAdapters(target);
      const loaded = new AdapterModel(unet, new LoRAConfig());
      await loaded.loadAdapters(target);
      expect(loaded.config.adapterType).toBe(model.config.adapterType);
      expect(relativeError((await loaded.predict(batch)).data, found.data)).toBeLessThan(1e-5);
      await loaded.release();
    }
    const written = await readSafetensors(again.at(-1)! + (isPeft ? "/adapter_model.safetensors" : ""));
    expect([...written.tensors.keys()].sort()).toEqual([...file.keys()].sort());
    for (const [key, value] of file) {
      expect(written.tensors.get(key)!.shape, key).toEqual(value.shape);
      expect(
        relativeError(written.tensors.get(key)!.data as Float32Array, value.data as Float32Array),
        key,
      ).toBeLessThan(1e-6);
    }

    const weights = await fusedWeights(unet, [{ ...model.attachable, name, scale: 0.5 }]);
    const fused = new UNet2DConditionModel(unet.config, weights, unet.runtime);
    const half = await model.predict({ ...batch, adapterScale: 0.5 });
    expect(relativeError((await fused.predict(batch)).data, half.data)).toBeLessThan(1e-5);
    await Promise.all([fused.release(), model.release()]);
  });
});
