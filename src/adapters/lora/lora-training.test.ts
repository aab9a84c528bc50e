import { beforeAll, describe, expect, it } from "vitest";
import { referenceBatch } from "../../../test/support/reference-batch.js";
import { relativeError } from "../../../test/support/relative-error.js";
import { UNet2DConditionModel } from "../../models/index.js";
import "../../runtime/node.js";
import { readSafetensors } from "../../storage/index.js";
import "../../storage/node.js";
import type { Tensor } from "../../tensor/tensor.js";
import { AdamW } from "../../training/index.js";
import { AdapterModel } from "../adapter-model.js";
import { DoRAConfig } from "../dora/dora-config.js";
import { TLoRAConfig } from "../t-lora/t-lora-config.js";
import { LoRAConfig } from "./lora-config.js";

const REFERENCE = "test/reference/unet-sd15";
const GRADIENT_TOLERANCE = 2e-3;
const TRAINED_TOLERANCE = 2e-3;
const OUTPUT_TOLERANCE = 2e-4;
const LOSS_TOLERANCE = 1e-5;

let unet: UNet2DConditionModel;
let batch: { latents: Tensor; timesteps: Tensor; encoderHiddenStates: Tensor; target: Tensor };
beforeAll(async () => {
  unet = await UNet2DConditionModel.fromPretrained(`${REFERENCE}/unet`);
  batch = await referenceBatch(REFERENCE);
});

describe.each(["linear", "convolution", "dora", "tlora"])("training as PEFT trains: %s", (name) => {
  it("the same output, gradients, losses over eight steps of AdamW, and trained adapters", async () => {
    const { tensors, metadata } = await readSafetensors(`test/reference/lora-training/${name}.safetensors`);
    const { r, lora_alpha: alpha, target_modules: targetModules } = JSON.parse(metadata.config!);
    const { lr, betas, eps, weight_decay: weightDecay } = JSON.parse(metadata.optimizer!);
    const layers = JSON.parse(metadata.layers!) as string[];
    const ownName = (key: string) => (name === "tlora" ? key.replace(".lora_", ".t_lora_") : key);
    const of = (kind: string) =>
      new Map(
        [...tensors]
          .filter(([key]) => key.startsWith(`${kind}.`))
          .map(([key, t]) => [ownName(key.slice(kind.length + 1)), t]),
      );
    const compare = (found: ReadonlyMap<string, Tensor>, kind: string, limit: number) => {
      const wanted = of(kind);
      expect([...found.keys()].sort()).toEqual([...wanted.keys()].sort());
      expect(wanted.size).toBe((name === "dora" ? 3 : 2) * layers.length);
      for (const [key, value] of wanted) {
        const error = relativeError(found.get(key)!.data as Float32Array, value.data as Float32Array);
        expect(error, `${kind} ${key}`).toBeLessThan(limit);
      }
    };
    const output = async (wanted: string) => {
      const { data } = await model.predict(batch);
      expect(relativeError(data, tensors.get(wanted)!.data as Float32Array), wanted).toBeLessThan(OUTPUT_TOLERANCE);
    };

    const { min_rank: minRank, power: maskPower } = JSON.parse(metadata.tlora ?? "{}");
    const options = { rank: r, alpha, targetModules };
    const model: AdapterModel = new AdapterModel(
      unet,
      name === "tlora" ? new TLoRAConfig({ ...options, minRank, maskPower }) : new LoRAConfig(options),
    );
    expect(model.layers.map(({ path }) => path).sort()).toEqual([...layers].sort());
    if (name === "dora") {
      const config = new DoRAConfig(model.config as LoRAConfig);
      model.useAdapter({ config, state: of("initial") as Map<string, Tensor<"float32">> });
    } else model.loadStateDict(of("initial"));
    await output("output");
    const [batchSize, , latentHeight, latentWidth] = batch.latents.shape as [number, number, number, number];
    const step = await model.compileTrainStep({
      ...{ batchSize, latentHeight, latentWidth, tokens: batch.encoderHiddenStates.shape[1]! },
      optimizer: new AdamW({ lr, betas, eps, weightDecay }),
    });
    compare((await step.gradients(batch)).gradients, "grad", GRADIENT_TOLERANCE);
    for (const loss of tensors.get("losses")!.data as Float32Array) {
      const found = await step.run(batch);
      expect(Math.abs(found.loss / loss - 1)).toBeLessThan(LOSS_TOLERANCE);
      expect(found.mse).toBe(found.loss);
    }
    compare(model.stateDict(), "trained", TRAINED_TOLERANCE);
    await output("trained_output");
    await step.release();
    await model.release();
  });
});
