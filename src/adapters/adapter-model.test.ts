import { readFileSync } from "node:fs";
import { afterAll, expect, it } from "vitest";
import { relativeError } from "../../test/support/relative-error.js";
import { UNet2DConditionModel } from "../models/unet-2d-condition/unet-2d-condition.js";
import "../runtime/node.js";
import "../storage/node.js";
import { Generator, randint, randn } from "../tensor/random.js";
import { tensor } from "../tensor/tensor.js";
import { AdamW } from "../training/optimizers/adamw.js";
import { AdapterModel } from "./adapter-model.js";
import { FeRAConfig } from "./fera/fera-config.js";
import { FeRAModel } from "./fera/fera-model.js";
import { LoRAConfig } from "./lora/lora-config.js";

const unet = await UNet2DConditionModel.fromPretrained("test/reference/unet-sd15", { subfolder: "unet" });
afterAll(() => unet.release());

const generator = new Generator(3);
const batch = {
  latents: randn([2, 4, 8, 8], { generator }),
  timesteps: randint(0, 1000, [2], { generator }),
  encoderHiddenStates: randn([2, 3, unet.config.cross_attention_dim as number], { generator }),
  target: randn([2, 4, 8, 8], { generator }),
};
const stepShape = { batchSize: 2, latentHeight: 8, latentWidth: 8, tokens: 3 };

/** One whose experts add something. */
function fera(seed: number): FeRAModel {
  const model = new FeRAModel(unet, new FeRAConfig({ rank: 2, numExperts: 2, numBands: 2 }));
  const drawn = new Generator(seed);
  const state = [...model.stateDict()].map(([name, { shape }]) => [name, randn(shape, { generator: drawn })] as const);
  model.loadStateDict(new Map(state));
  return model;
}

it("a prediction keeps what it was asked with, whatever happens to the adapters meanwhile", async () => {
  const state = fera(2).stateDict();
  const { data: expected } = await fera(1).predict(batch);
  const changes: [string, (model: FeRAModel) => unknown][] = [
    ["parameters asked for", (model) => model.parameters],
    ["released", (model) => model.release()],
    ["other values", (model) => model.loadStateDict(state)],
  ];
  for (const [name, change] of changes) {
    const model = fera(1);
    const cold = model.predict(batch);
    await Promise.resolve();
    await change(model);
    expect((await cold).data, name).toEqual(expected);
    model.loadStateDict(fera(1).stateDict());
    await model.predict(batch);
    const warm = model.predict(batch);
    const changed = change(model);
    expect(relativeError((await warm).data, (await cold).data), name).toBeLessThan(1e-6);
    await changed;
    await model.release();
  }
});

it("overlapping predictions with and without shared parameters agree", async () => {
  const model = fera(1);
  const first = model.predict(batch);
  const [values] = [...model.parameters.values()];
  const second = model.predict(batch);
  expect(relativeError((await first).data, (await second).data)).toBeLessThan(1e-6);
  values!.data.fill(0);
  expect(relativeError((await model.predict(batch)).data, (await first).data)).toBeGreaterThan(1e-6);
  await model.release();
});

it("training steps that are asked for at once follow one another, and releasing waits for them", async () => {
  const [atOnce, oneByOne] = [fera(1), fera(1)];
  const step = await atOnce.compileTrainStep({ ...stepShape, optimizer: new AdamW({ lr: 1e-3 }) });
  const losses = [step.run(batch), step.run(batch), step.run(batch)];
  await step.release();
  const reference = await oneByOne.compileTrainStep({ ...stepShape, optimizer: new AdamW({ lr: 1e-3 }) });
  const expected = [await reference.run(batch), await reference.run(batch), await reference.run(batch)];
  await reference.release();
  expect(await Promise.all(losses)).toEqual(expected);
  expect(atOnce.stateDict()).toEqual(oneByOne.stateDict());
});

it("a model takes other weights while it predicts, and what is asked for from then on has them", async () => {
  const other = await UNet2DConditionModel.fromPretrained("test/reference/unet-sd15", { subfolder: "unet" });
  const zeroed = UNet2DConditionModel.fromConfig(
    JSON.parse(readFileSync("test/reference/unet-sd15/unet/config.json", "utf8")),
    new Generator(9),
  );
  const [before, after] = [(await unet.predict(batch)).data, (await zeroed.predict(batch)).data];
  const first = other.predict(batch);
  const replaced = other.replaceWeights(zeroed.weights);
  const second = other.predict(batch);
  await replaced;
  expect((await first).data).toEqual(before);
  expect((await second).data).toEqual(after);
  expect((await other.predict(batch)).data).toEqual(after);
  await Promise.all([other.release(), zeroed.release()]);
});

it("routing by timesteps takes one, or one for each", async () => {
  const model = new FeRAModel(unet, new FeRAConfig({ router: "timestep" }));
  const [one, each] = [tensor([7]), tensor([7, 7])];
  expect((await model.route(batch.latents, one)).gates).toEqual((await model.route(batch.latents, each)).gates);
  await expect(model.route(batch.latents, tensor([1, 2, 3]))).rejects.toThrow(
    "route: timesteps must be one, or 2 like the latents; got 3.",
  );
  await model.release();
});

it("a rank or alpha for a layer that is not adapted is refused, and so is no configuration", () => {
  for (const pattern of [{ rankPattern: { to_w: 2 } }, { alphaPattern: { "down_blocks.0.zzz": 2 } }]) {
    expect(() => new AdapterModel(unet, new LoRAConfig(pattern))).toThrow(
      /names none of the adapted layers; they are named like .*to_/,
    );
  }
  const { layers } = new AdapterModel(unet, new LoRAConfig());
  const ranks = new AdapterModel(unet, new LoRAConfig({ rankPattern: { [layers[0]!.path]: 2 } })).stateDict();
  expect(ranks.get(`${layers[0]!.path}.lora_A.weight`)!.shape[0]).toBe(2);
  expect(() => new AdapterModel(unet, undefined as never)).toThrow("adapter: the configuration must be one of");
});

it("an option that is given twice must be given one value", async () => {
  const model = fera(1);
  const twice = { ...stepShape, latentHeight: 8, height: 16 };
  await expect(model.compileTrainStep(twice)).rejects.toThrow(
    "compileTrainStep: latentHeight is 8, and height, the same option, 16; give one.",
  );
});
