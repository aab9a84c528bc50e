// One rank of a measurement, started by mpirun or alone: all-reduce of messages, or a trainer's steps on random data. Rank 0 prints
// one line of JSON.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  AdamW,
  createObjective,
  DiffusionBatches,
  FeRAConfig,
  FeRAModel,
  joinMpi,
  Trainer,
  UNet2DConditionModel,
} from "../../src/index.js";
import { Generator, randn } from "../../src/tensor/random.js";

/** What to measure. */
export type RankTask =
  | { kind: "sums"; bytes: readonly number[]; runs: number }
  | {
      kind: "steps";
      /** A folder with `unet/`. */
      model: string;
      config: object;
      /** Of all ranks together. */
      batchSize: number;
      latentSize: number;
      tokens: number;
      threads: number;
      steps: number;
      /** Not counted, at the beginning. */
      settling: number;
      /** Without MPI. */
      isAlone: boolean;
    };

/** What rank 0 prints. */
export interface RankResult {
  ranks: number;
  /** Of sums, by message: every run in seconds, the slowest rank's. */
  sums?: { bytes: number; seconds: number[] }[];
  /** Of steps: each one's time, of it the sum over ranks with its wait, and the message's size. */
  steps?: number[];
  sumSeconds?: number[];
  messageBytes?: number;
}

const task = JSON.parse(process.argv[2]!) as RankTask;
const ranks = task.kind === "steps" && task.isAlone ? undefined : await joinMpi();
const result: RankResult = { ranks: ranks?.size ?? 1 };
if (task.kind === "sums") {
  result.sums = [];
  for (const bytes of task.bytes) {
    const values = new Float32Array(bytes / 4);
    const seconds: number[] = [];
    for (let run = 0; run < task.runs + 1; run++) {
      values.fill(1);
      await ranks!.barrier();
      const startedAt = performance.now();
      await ranks!.sum(values);
      const taken = (performance.now() - startedAt) / 1000;
      const slowest = Math.max(...(await ranks!.gather(String(taken))).map(Number));
      if (values[7] !== ranks!.size) throw new Error(`the sum is ${values[7]}, not ${ranks!.size}`);
      if (run > 0) seconds.push(slowest);
    }
    result.sums.push({ bytes, seconds });
  }
} else {
  const loaded = await UNet2DConditionModel.fromPretrained(task.model, { subfolder: "unet" });
  const model = new UNet2DConditionModel(loaded.config, loaded.weights, { threads: task.threads });
  const fera = new FeRAModel(model, FeRAConfig.fromJSON(task.config as never));
  const optimizer = new AdamW({ lr: 1e-4 });
  const { batchSize, latentSize: side } = task;
  const trainable = await fera.compileTrainStep({
    ...{ batchSize: batchSize / (ranks?.size ?? 1), latentHeight: side, latentWidth: side, tokens: task.tokens },
  });
  const generator = new Generator(2);
  const { in_channels: channels, cross_attention_dim: features } = model.config;
  const examples = 64;
  const data = {
    latents: randn([examples, channels, side, side], { generator }),
    conditioning: { encoderHiddenStates: randn([examples, task.tokens, features], { generator }) },
    empty: { encoderHiddenStates: randn([1, task.tokens, features], { generator }) },
  };
  const output = await mkdtemp(join(tmpdir(), "fera-bench-"));
  const endedAt: number[] = [];
  const sumSeconds: number[] = [];
  const timed = ranks && {
    ...{ rank: ranks.rank, size: ranks.size, hosts: ranks.hosts, connection: ranks.connection },
    sum: async (values: Float32Array) => {
      result.messageBytes = values.byteLength;
      const startedAt = performance.now();
      await ranks.sum(values);
      sumSeconds.push((performance.now() - startedAt) / 1000);
    },
    broadcast: (bytes?: Uint8Array) => ranks.broadcast(bytes),
    gather: (text: string) => ranks.gather(text),
    barrier: () => ranks.barrier(),
    leave: () => ranks.leave(),
    expectEnd: () => ranks.expectEnd(),
    abort: (code: number) => ranks.abort(code),
  };
  try {
    const trainer = new Trainer({
      trainable: trainable as never,
      batches: new DiffusionBatches(data, {
        ...{
          batchSize,
          captionDropout: 0.1,
          objective: createObjective({ beta_schedule: "scaled_linear" }),
          generator,
        },
        ...(ranks && { part: { index: ranks.rank, of: ranks.size } }),
      }),
      ...{ optimizer, steps: task.steps + task.settling, output, maxGradientNorm: 1, ranks: timed },
      onStep: () => void endedAt.push(performance.now()),
    });
    await trainer.run();
  } finally {
    await rm(output, { recursive: true, force: true });
  }
  await trainable.release();
  const steps = endedAt.slice(1).map((end, i) => (end - endedAt[i]!) / 1000);
  result.steps = steps.slice(Math.max(0, task.settling - 1));
  result.sumSeconds = sumSeconds.slice(task.settling);
}
if ((ranks?.rank ?? 0) === 0) process.stdout.write(`${JSON.stringify(result)}\n`);
await ranks?.leave();
