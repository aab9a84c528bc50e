// The program that measures one method's training step: `method-part.ts TASK`, TASK as JSON. Started by methods.ts.

import { adapterConfigFromJSON } from "../src/adapters/index.js";
import {
  AdamW,
  AdapterModel,
  FeRAConfig,
  FeRAModel,
  Generator,
  randint,
  randn,
  UNet2DConditionModel,
} from "../src/index.js";
import { sayPhase, sayResult } from "./measured-process.js";
import { ownPeakBytes } from "./memory.js";

/** What is measured. */
export interface MethodTask {
  /** A folder with `unet/`. */
  model: string;
  adapter: { type: string; config: Record<string, unknown> };
  latent: number;
  batch: number;
  tokens: number;
  threads: number;
  /** Steady steps: after the first, and one more that settles memory. */
  runs: number;
}

/** What it gives. */
export interface MethodResult {
  /** Trained values. */
  parameters: number;
  createSeconds: number;
  seconds: number[];
  /** Time that the processors worked, of all threads together. */
  cpuSeconds: number[];
  peakBytes: number;
}

const task = JSON.parse(process.argv[2]!) as MethodTask;
sayResult(await measureMethod(task));

async function measureMethod({ model, adapter, latent, batch: batchSize, tokens, threads, runs }: MethodTask) {
  sayPhase("load");
  const loaded = await UNet2DConditionModel.fromPretrained(model, { subfolder: "unet" });
  const unet = new UNet2DConditionModel(loaded.config, loaded.weights, { threads });
  const config = adapterConfigFromJSON(adapter.type, adapter.config, "the method");
  const adapted = config instanceof FeRAConfig ? new FeRAModel(unet, config) : await AdapterModel.create(unet, config);
  const generator = new Generator(1);
  const { in_channels: channels, out_channels: predicted, cross_attention_dim: features } = unet.config;
  const batch = {
    latents: randn([batchSize, channels, latent, latent], { generator }),
    timesteps: randint(0, 1000, [batchSize], { generator }),
    encoderHiddenStates: randn([batchSize, tokens, features], { generator }),
    target: randn([batchSize, predicted, latent, latent], { generator }),
  };
  sayPhase("create");
  const startedAt = performance.now();
  const optimizer = new AdamW({ lr: 1e-4 });
  const step = await adapted.compileTrainStep({ batchSize, height: latent, width: latent, tokens, optimizer });
  const createSeconds = (performance.now() - startedAt) / 1000;
  const result: MethodResult = {
    parameters: adapted.parameterCount,
    createSeconds,
    seconds: [],
    cpuSeconds: [],
    peakBytes: 0,
  };
  sayPhase("first steps");
  for (let i = 0; i < 2; i++) await step.run(batch);
  sayPhase("steps");
  for (let i = 0; i < runs; i++) {
    const [before, cpu] = [performance.now(), process.cpuUsage()];
    await step.run(batch);
    const { user, system } = process.cpuUsage(cpu);
    result.seconds.push((performance.now() - before) / 1000);
    result.cpuSeconds.push((user + system) / 1e6);
  }
  await step.release();
  return { ...result, peakBytes: ownPeakBytes() };
}
