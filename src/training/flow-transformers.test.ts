import { describe, expect, it } from "vitest";
import { type TransformerClass, transformerGolden } from "../../test/support/transformer-golden.js";
import { AdapterModel, FeRAConfig, FeRAModel, LoRAConfig } from "../adapters/index.js";
import { createObjective } from "../diffusion/index.js";
import { FluxTransformer2DModel, SD3Transformer2DModel } from "../models/index.js";
import "../runtime/node.js";
import "../storage/node.js";
import { Generator, randn } from "../tensor/random.js";
import { tensor } from "../tensor/tensor.js";
import { AdamW } from "./index.js";
import { WholeDenoiser } from "./whole-denoiser.js";

const STEPS = 12;
/** Each step's batch is one of two, at these timesteps. */
const LEVELS = [
  [50, 700],
  [350, 990],
];

const families: [string, TransformerClass, string, number][] = [
  ["sd3", SD3Transformer2DModel, "sd3.5", 3 * 8 - 1],
  ["flux", FluxTransformer2DModel, "dev", 2 * 12 + 2 * 3],
];

describe.each(families)("%s under flow matching", (family, of, name, usualLayers) => {
  it("learns by FeRA: the loss falls, and the gates follow the latents on their grid", async () => {
    const { draw } = await transformerGolden(family, of);
    const { model, inputs } = draw(name);
    const sigma = { rule: "latent", divisor: 4 } as const;
    const fera = new FeRAModel(
      model,
      new FeRAConfig({ rank: 2, numExperts: 2, numBands: 3, bands: "complete", sigma }),
    );
    expect(fera.layers).toHaveLength(usualLayers);
    const objective = createObjective({ _class_name: "FlowMatchEulerDiscreteScheduler", shift: 3 });
    const generator = new Generator(4);
    const clean = randn(inputs.latents.shape, { generator });
    const [batchSize, , latentHeight, latentWidth] = clean.shape as [number, number, number, number];
    const tokens = inputs.encoderHiddenStates!.shape[1]!;
    const step = await fera.compileTrainStep({
      ...{ batchSize, latentHeight, latentWidth, tokens, objective },
      optimizer: new AdamW({ lr: 0.02 }),
    });
    const losses: number[] = [];
    const batches = LEVELS.map((timesteps) => {
      const { latents, target } = objective.noised(clean, randn(clean.shape, { generator }), timesteps);
      return { ...inputs, latents, target, timesteps: tensor(timesteps, [batchSize]) };
    });
    for (let at = 0; at < STEPS; at++) losses.push((await step.run(batches[at % 2]!)).loss);
    const [first, second] = losses as [number, number];
    expect(losses.at(-2)! + losses.at(-1)!).toBeLessThan(0.8 * (first + second));

    const early = await fera.route(randn(clean.shape, { generator }));
    const late = await fera.route(clean);
    expect(early.energies.shape).toEqual([batchSize, 3]);
    expect(early.weights.data).not.toEqual(late.weights.data);
    await step.release();
    await fera.release();
  });

  it("adapts the layers that are usual for it, or those that are named", async () => {
    const { draw } = await transformerGolden(family, of);
    const { model } = draw(name);
    const usual = new AdapterModel(model, new LoRAConfig({ rank: 1 }));
    expect(usual.layers).toHaveLength(usualLayers);
    expect(usual.config.targetModules).toEqual(model.usualTargets);
    expect(usual.copy().layers).toEqual(usual.layers);
    const named = ["to_q", "to_k", "to_v", "to_out.0"];
    const own = new AdapterModel(model, new LoRAConfig({ rank: 1, targetModules: named }));
    expect(own.config.targetModules).toEqual(named);
    expect(own.layers.every(({ path }) => named.some((end) => path.endsWith(`.${end}`)))).toBe(true);
    expect(new LoRAConfig({ rank: 1 }).with({ rank: 2 }).targetModules).toBe(new LoRAConfig().targetModules);
  });
});

it("whole: all that was learned is trained, the table of positions stays", async () => {
  const { draw } = await transformerGolden("sd3", SD3Transformer2DModel);
  const { model, inputs, target } = draw("sd3");
  const whole = await WholeDenoiser.of(model);
  const table = "pos_embed.pos_embed";
  expect([...model.weights.weights.keys()].filter((name) => !whole.parameters.has(name))).toEqual([table]);
  const [batchSize, , latentHeight, latentWidth] = inputs.latents.shape as [number, number, number, number];
  const shape = { batchSize, latentHeight, latentWidth, tokens: inputs.encoderHiddenStates!.shape[1]! };
  const step = await whole.compileTrainStep({ ...shape, optimizer: new AdamW({ lr: 1e-3 }) });
  const before = await model.predict(inputs);
  const first = await step.run({ ...inputs, target });
  for (let at = 0; at < 4; at++) await step.run({ ...inputs, target });
  const kept = model.weights.weights.get(table);
  await whole.apply();
  expect(model.weights.weights.get(table)).toBe(kept);
  const after = await model.predict(inputs);
  const loss = after.data.reduce((sum, value, i) => sum + (value - target.data[i]!) ** 2, 0) / after.size;
  expect(loss).toBeLessThan(0.9 * first.loss);
  expect(after.data).not.toEqual(before.data);
  await step.release();
  await model.dispose();
});
