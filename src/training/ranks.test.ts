// Several ranks of one training, in one process: parts of batches, their mean, and steps that are those of one rank.

import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { ranksInProcess } from "../../test/support/ranks-in-process.js";
import { relativeError } from "../../test/support/relative-error.js";
import { FeRAConfig, LoRAConfig } from "../adapters/index.js";
import { createObjective } from "../diffusion/index.js";
import type { RankGroup } from "../distributed/index.js";
import { Generator, randn } from "../tensor/random.js";
import { concatRows } from "../tensor/rows.js";
import { zeros } from "../tensor/tensor.js";
import { type BatchOptions, DiffusionBatches } from "./diffusion-batches.js";
import type { EncodedDataset } from "./encoded-dataset.js";
import { AdamW } from "./optimizers/adamw.js";
import { firstOnEachHost, refuseWholeBatchLosses, requireAgreement, samplesPerRank } from "./rank-agreement.js";
import { requireSameOnAll } from "./rank-checkpoints.js";
import { RankMean } from "./rank-mean.js";
import type { DiffusionBatch, Trainable } from "./trainable.js";
import { Trainer, type TrainerOptions } from "./trainer.js";

const IMAGES = 7;
const BATCH = 6;
const STEPS = 9;

const folders: string[] = [];
const folder = (): string => {
  const made = mkdtempSync(join(tmpdir(), "fera-ranks-"));
  folders.push(made);
  return made;
};
afterAll(() => {
  for (const made of folders) rmSync(made, { recursive: true });
});

const generator = new Generator(5);
const data: EncodedDataset = {
  latents: randn([IMAGES, 2, 4, 4], { generator }),
  latentStd: randn([IMAGES, 2, 4, 4], { generator }),
  conditioning: { encoderHiddenStates: randn([IMAGES, 2, 3], { generator }) },
  empty: { encoderHiddenStates: zeros([1, 2, 3]) },
};
const objective = createObjective({ prediction_type: "epsilon" }, { minSnrGamma: 5, loss: "huber" });
const EVERY_OPTION = {
  ...{ captionDropout: 0.4, noiseOffset: 0.1, noiseOffsetRandom: true, multiresNoiseIterations: 3 },
  ...{ inputPerturbation: 0.1, variation: { flip: true } },
} as const;
const batches = (ranks?: RankGroup, options: Partial<BatchOptions> = {}) =>
  new DiffusionBatches(data, {
    ...{ batchSize: BATCH, objective, generator: new Generator(3) },
    ...(ranks && { part: { index: ranks.rank, of: ranks.size } }),
    ...options,
  });

describe("parts of a batch", () => {
  it.each(["uniform", "stratified", "logit-normal"] as const)(
    "are together what one stream gives, with every option on and %s timesteps",
    async (timestepSampling) => {
      const options = { ...EVERY_OPTION, timestepSampling };
      const whole = batches(undefined, options);
      const parts = ranksInProcess(3).map((ranks) => batches(ranks, options));
      for (let step = 0; step < 4; step++) {
        const expected = await whole.next();
        const drawn = await Promise.all(parts.map((part) => part.next()));
        for (const [name, value] of Object.entries(expected)) {
          const pieces = drawn.map((part) => part[name as keyof typeof part]);
          if (name === "rows") expect(pieces.flat()).toEqual(value);
          else expect(concatRows(pieces as never)).toEqual(value);
        }
        for (const part of parts) expect(part.state()).toEqual(whole.state());
      }
    },
  );

  it("read their own rows only", async () => {
    const read: number[] = [];
    const rows = {
      ...{ size: IMAGES, empty: {}, latentSize: () => ({ latentHeight: 4, latentWidth: 4 }) },
      async read(draws: readonly { index: number }[]) {
        read.push(draws.length);
        return { latents: zeros([draws.length, 2, 4, 4]), conditioning: {} };
      },
    };
    await new DiffusionBatches(rows, { batchSize: 6, objective, generator, part: { index: 1, of: 3 } }).next();
    expect(read).toEqual([2]);
  });

  it.each([
    { index: 0, of: 4 },
    { index: 3, of: 3 },
    { index: -1, of: 2 },
  ])("are refused where they are none: %o", (part) => {
    expect(() => batches(undefined, { part })).toThrow(
      `part must be one of equal parts of a batch of 6; got part ${part.index} of ${part.of}.`,
    );
  });
});

describe("the mean over ranks", () => {
  it("is of gradients and losses, with all samples in the order of whole batches", async () => {
    const own = [1, 2, 3].map((value) => ({
      losses: { loss: value, mse: 2 * value },
      gradients: new Map([["w", Float32Array.of(value, 10 * value)]]),
      // Two batches, of each of which this rank computes two samples.
      sampleLosses: {
        losses: [0, 1, 2, 3].map((i) => 10 * value + i),
        timesteps: [0, 1, 2, 3].map((i) => 100 * value + i),
      },
    }));
    const means = ranksInProcess(3).map((ranks) => new RankMean(ranks, 2, () => ranks.rank === 1));
    const results = await Promise.all(means.map((mean, rank) => mean.of(own[rank]!)));
    for (const [rank, result] of results.entries()) {
      expect(result.losses).toEqual({ loss: 2, mse: 4 });
      expect([...result.gradients.get("w")!]).toEqual([2, 20]);
      expect(result.sampleLosses!.losses).toEqual([10, 11, 20, 21, 30, 31, 12, 13, 22, 23, 32, 33]);
      expect(result.sampleLosses!.timesteps).toEqual([100, 101, 200, 201, 300, 301, 102, 103, 202, 203, 302, 303]);
      expect(means[rank]!.isStopAsked).toBe(true);
    }
  });
});

/** Learns a scale for each place of the latents, loss mean weight·(w·z_t − target)². */
function scales(): Trainable {
  const weights = randn([32], { generator: new Generator(1) });
  return {
    parameters: new Map([["w", weights]]),
    async compute({ latents, target, timesteps, lossWeights }: DiffusionBatch) {
      const count = latents.shape[0]!;
      const gradient = new Float32Array(32);
      const losses = Array<number>(count).fill(0);
      for (const [i, z] of latents.data.entries()) {
        const [sample, place] = [Math.floor(i / 32), i % 32];
        const weight = Number(lossWeights?.data[sample] ?? 1);
        const difference = weights.data[place]! * z - Number(target.data[i]!);
        losses[sample] = losses[sample]! + difference ** 2 / 32;
        gradient[place] = gradient[place]! + (2 * weight * difference * z) / latents.size;
      }
      const loss = losses.reduce((sum, value) => sum + value, 0) / count;
      const sampleLosses = { losses, timesteps: Array.from(timesteps.data as ArrayLike<number | bigint>, Number) };
      return { losses: { loss, mse: loss }, gradients: new Map([["w", gradient]]), sampleLosses };
    },
  };
}

function trainer(output: string, ranks?: RankGroup, options: Partial<TrainerOptions> = {}): Trainer {
  return new Trainer({
    ...{ trainable: scales(), batches: batches(ranks, EVERY_OPTION), optimizer: new AdamW({ lr: 0.1 }) },
    ...{
      output,
      ranks,
      steps: STEPS,
      gradientAccumulation: 2,
      maxGradientNorm: 0.3,
      checkpointEvery: 4,
      onMessage() {},
    },
    ...options,
  });
}
const trained = ({ parameters }: { parameters: ReadonlyMap<string, { data: Float32Array }> }) =>
  parameters.get("w")!.data;

describe("a trainer with ranks", () => {
  it.each([2, 3])("of %i takes the steps of one, writes once, and goes on with another number", async (size) => {
    const expected = trained(await trainer(folder()).run());
    const outputs = Array.from({ length: size }, folder);
    const half = ranksInProcess(size).map((ranks, i) => trainer(outputs[i]!, ranks, { steps: 5 }));
    const halves = await Promise.all(half.map((each) => each.run()));
    for (const result of halves) expect(trained(result)).toEqual(trained(halves[0]!));
    expect(readdirSync(outputs[0]!).sort()).toEqual(["checkpoints", "metrics.jsonl"]);
    for (const output of outputs.slice(1)) expect(readdirSync(output)).toEqual([]);

    const others = ranksInProcess(6).map((ranks) => trainer(ranks.rank === 0 ? outputs[0]! : "nowhere", ranks));
    expect(await Promise.all(others.map((each) => each.resume()))).toEqual(Array(6).fill(5));
    const results = await Promise.all(others.map((each) => each.run()));
    for (const result of results) expect(relativeError(trained(result), expected)).toBeLessThan(1e-6);
  });

  it("stops on all where one is asked to", async () => {
    const controller = new AbortController();
    const output = folder();
    const results = await Promise.all(
      ranksInProcess(2).map((ranks) =>
        trainer(output, ranks, {
          steps: 1000,
          ...(ranks.rank === 1 && { signal: controller.signal }),
          onStep: ({ step }) => void (step === 3 && controller.abort()),
        }).run(),
      ),
    );
    expect(results.map(({ finished }) => finished)).toEqual([false, false]);
    expect(results[0]!.step).toBe(results[1]!.step);
    expect(results[0]!.step).toBeLessThan(8);
  });

  it("goes back on all where a number is not finite", async () => {
    const output = folder();
    const broken = (isFirst: boolean): Trainable => {
      const whole = scales();
      let calls = 0;
      return {
        parameters: whole.parameters,
        async compute(batch) {
          const result = await whole.compute(batch);
          if (!isFirst && ++calls === 11) result.gradients.get("w")![3] = Number.NaN;
          return result;
        },
      };
    };
    const results = await Promise.all(
      ranksInProcess(2).map((ranks) =>
        trainer(output, ranks, { trainable: broken(ranks.rank === 0), onNonFinite: "rollback" }).run(),
      ),
    );
    expect(results.map(({ step }) => step)).toEqual([STEPS, STEPS]);
    expect(trained(results[1]!)).toEqual(trained(results[0]!));
    expect(trained(results[0]!).every(Number.isFinite)).toBe(true);
  });

  it("says where ranks no longer have the same adapters", async () => {
    const same = ranksInProcess(3, ["a", "b", "c"]).map(async (ranks) =>
      requireSameOnAll(
        ranks,
        new Map([["w", randn([3], { generator: new Generator(ranks.rank === 1 ? 9 : 0) })]]),
        "step 4",
      ),
    );
    for (const check of same)
      await expect(check).rejects.toThrow(/^step 4: rank 1 of 3 \(host b\) no longer has the same/);
  });
});

describe("ranks that start", () => {
  const values = { rank: 4, cacheDir: "a" };
  const own = { fingerprint: '{"seed":0}', identity: {}, values, engine: { "ONNX Runtime": "1" } };

  it("agree wherever their caches are", async () => {
    const agreed = ranksInProcess(2).map((ranks) =>
      requireAgreement(ranks, { ...own, values: { ...values, cacheDir: String(ranks.rank) } }),
    );
    await Promise.all(agreed);
  });

  it.each([
    [{ fingerprint: '{"seed":1}' }, "rank 1 of 2 (host here): seed was 0, is 1."],
    [{ values: { rank: 8 } }, "rank 1 of 2 (host here): rank was 4, is 8."],
    [{ engine: { "ONNX Runtime": "2" } }, 'rank 1 of 2 (host here): ONNX Runtime is "2", not "1".'],
  ])("are refused with %o on one of them, on all", async (other, message) => {
    const checks = ranksInProcess(2).map((ranks) =>
      requireAgreement(ranks, { ...own, ...(ranks.rank === 1 && other) }),
    );
    for (const check of checks) await expect(check).rejects.toThrow(message);
  });

  it("must be able to divide a batch", () => {
    const [ranks] = ranksInProcess(4);
    expect(samplesPerRank(8, ranks)).toBe(2);
    expect(samplesPerRank(7, undefined)).toBe(7);
    expect(() => samplesPerRank(6, ranks)).toThrow("must be a multiple of their number, 4; got 6. Take 8, or");
  });

  it("refuse a loss that is of the whole batch", () => {
    const [ranks] = ranksInProcess(2);
    const balanced = new FeRAConfig({ balanceWeight: 0.1 });
    expect(() => refuseWholeBatchLosses(balanced, ranks)).toThrow(
      "balanceWeight 0.1: its loss is of the whole batch's",
    );
    refuseWholeBatchLosses(balanced, ranksInProcess(1)[0]);
    refuseWholeBatchLosses(new FeRAConfig(), ranks);
    refuseWholeBatchLosses(new LoRAConfig(), ranks);
  });

  it("let the first of each host go ahead", async () => {
    const order: number[] = [];
    const groups = ranksInProcess(4, ["a", "b", "a", "b"]);
    await Promise.all(groups.map((ranks) => firstOnEachHost(ranks, async () => void order.push(ranks.rank))));
    expect(order.slice(0, 2).sort()).toEqual([0, 1]);
    expect(order).toHaveLength(4);
  });
});
