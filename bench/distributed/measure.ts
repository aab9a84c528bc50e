// How fast several ranks are: sums of gradients on this machine and over links between two hosts, and a trainer's steps.
//   npx tsx bench/distributed/measure.ts sums|links|embedded|sd15|linked-sd15 --json FILE [--latent 32] [--rounds 3] [--steps 3] [--model FOLDER]
// Results of several runs are joined in FILE; scaling.ts makes the model and the plot of them.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { demoConfig } from "../../src/demo/run-demo.js";
import { FeRAConfig } from "../../src/index.js";
import { sd15Folder } from "../sd15-weights.js";
import { median } from "../statistics.js";
import { canMakeHosts, type Link, onRanks } from "./launch.js";
import type { RankTask } from "./rank.js";

/** A way to divide a machine: ranks, each with so many threads. */
interface Division {
  ranks: number;
  threads: number;
}

/** Of one way. */
export interface StepTimes extends Division {
  /** Every step of every round. */
  seconds: number[];
  /** Of each step, the sum over ranks with the wait for the slower one. */
  sumSeconds: number[];
  messageBytes: number;
}

/** Steps of one model in every way, in turns. */
export interface Steps {
  batchSize: number;
  latentSize: number;
  ways: StepTimes[];
  load: number;
}

/** Steps of two hosts of one thread each, over a link. */
export interface LinkedSteps extends Link {
  seconds: number[];
  sumSeconds: number[];
}

/** What measure.ts writes. */
export interface Measurements {
  sums?: { ranks: number; bytes: number; seconds: number[] }[];
  links?: (Link & { bytes: number; seconds: number[] })[];
  embedded?: Steps;
  [sd15: `sd15-${number}`]: Steps;
  [linked: `linked-sd15-${number}`]: LinkedSteps[];
}

const MEGABYTE = 1e6;
const WAYS: readonly Division[] = [
  { ranks: 1, threads: 1 },
  { ranks: 1, threads: 2 },
  { ranks: 2, threads: 1 },
];
const LINKS: readonly Link[] = [1, 10].flatMap((gigabits) =>
  [0.1, 1].map((milliseconds) => ({ gigabits, milliseconds })),
);

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: "string" },
    latent: { type: "string", default: "32" },
    rounds: { type: "string", default: "3" },
    steps: { type: "string", default: "3" },
    model: { type: "string" },
  },
});
const [what] = positionals;
const [rounds, steps, latentSize] = [Number(values.rounds), Number(values.steps), Number(values.latent)];
const known: Measurements = values.json && existsSync(values.json) ? JSON.parse(readFileSync(values.json, "utf8")) : {};

if (what === "sums") {
  known.sums = [];
  const bytes = [2, 8, 32, 128].map((size) => size * MEGABYTE);
  for (const ranks of [2, 4]) {
    const { sums } = await onRanks(ranks, { kind: "sums", bytes, runs: 5 * rounds });
    known.sums.push(...sums!.map((sum) => ({ ranks, ...sum })));
  }
} else if (what === "links") {
  if (!canMakeHosts()) throw new Error("links: this user may not make network namespaces; run as root.");
  known.links = [];
  for (const link of LINKS) {
    const { sums } = await onRanks(2, { kind: "sums", bytes: [4096, 2e6, 8e6, 32e6], runs: 3 * rounds }, link);
    known.links.push(...sums!.map((sum) => ({ ...link, ...sum })));
  }
} else if (what === "embedded") {
  const model = fileURLToPath(new URL("../../assets/icons", import.meta.url));
  const config = demoConfig().toJSON();
  known.embedded = await measureSteps({ model, config, batchSize: 8, latentSize: 16, tokens: 24 });
} else if (what === "sd15") {
  known[`sd15-${latentSize}`] = await measureSteps(await sd15Model());
} else if (what === "linked-sd15") {
  if (!canMakeHosts()) throw new Error("linked-sd15: making network namespaces takes root and iproute2.");
  known[`linked-sd15-${latentSize}`] = await measureLinkedSteps(await sd15Model());
} else throw new Error(`measure.ts sums|links|embedded|sd15|linked-sd15; got ${what}.`);
const text = `${JSON.stringify(known, undefined, 1)}\n`;
if (values.json) writeFileSync(values.json, text);
else process.stdout.write(text);

type Model = Pick<Extract<RankTask, { kind: "steps" }>, "model" | "config" | "batchSize" | "latentSize" | "tokens">;

/** Rank 4, a sample for each of two ranks. */
async function sd15Model(): Promise<Model> {
  const model = values.model ?? (await sd15Folder());
  return { model, config: new FeRAConfig({ rank: 4 }).toJSON(), batchSize: 2, latentSize, tokens: 77 };
}

/** What a link costs a training: of a step, all but the sum over ranks would be the same for a host alone with its part of the batch. */
async function measureLinkedSteps(model: Model): Promise<LinkedSteps[]> {
  const results: LinkedSteps[] = [];
  for (const link of LINKS) {
    const task: RankTask = { kind: "steps", ...model, threads: 1, steps, settling: 1, isAlone: false };
    const result = await onRanks(2, task, link);
    const [seconds, sumSeconds] = [result.steps!, result.sumSeconds!];
    results.push({ ...link, seconds, sumSeconds });
    const [step, sum] = [median(seconds), median(sumSeconds)];
    const speedUp = ((2 * (step - sum)) / step).toFixed(3);
    console.error(
      `${link.gigabits} Gbit/s, ${link.milliseconds} ms: ${step.toFixed(2)} s, of it ${sum.toFixed(3)} s the sum: ${speedUp}`,
    );
  }
  return results;
}

async function measureSteps(model: Model): Promise<Steps> {
  const ways = WAYS.map((way): StepTimes => ({ ...way, seconds: [], sumSeconds: [], messageBytes: 0 }));
  const settling = Math.max(1, Math.floor(steps / 3));
  for (let round = 0; round < rounds; round++) {
    for (const way of ways) {
      const { ranks, threads } = way;
      const task: RankTask = { kind: "steps", ...model, threads, steps, settling, isAlone: ranks === 1 };
      const result = await onRanks(ranks, task);
      way.seconds.push(...result.steps!);
      way.sumSeconds.push(...result.sumSeconds!);
      way.messageBytes = result.messageBytes ?? 0;
      const step = median(result.steps!).toPrecision(3);
      console.error(`round ${round + 1}: ${ranks} × ${threads} threads, ${step} s per step of ${model.batchSize}`);
    }
  }
  return { batchSize: model.batchSize, latentSize: model.latentSize, ways, load: loadavg()[0]! };
}
