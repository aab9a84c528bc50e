// What do the methods of the study cost at Stable Diffusion 1.5's size: time of a training step, and memory?

import { join } from "node:path";
import { targetLayers } from "../src/adapters/index.js";
import { formatTable } from "../src/cli/format.js";
import { budgetOf } from "../src/evidence/budget.js";
import { METHODS, methodNamed } from "../src/evidence/methods.js";
import { UNet2DConditionModel } from "../src/index.js";
import { measureProgram } from "./measured-process.js";
import type { MethodResult, MethodTask } from "./method-part.js";
import { environment, warnOfLoad } from "./prepared-step.js";
import { readIntoPageCache } from "./sd15-weights.js";
import { formatMemory, formatSeconds, median } from "./statistics.js";

/** Those that can be measured: a method with an adapter. */
export const ADAPTED_METHODS = METHODS.filter(({ kind }) => kind === "adapter").map(({ name }) => name);

/** What to measure. */
export type MethodsOptions = Omit<MethodTask, "adapter"> & {
  /** Of {@link ADAPTED_METHODS}. */
  methods: readonly string[];
  /** Processes per method, in turns. */
  rounds: number;
};

/** What was measured; the names are those of the JSON file. */
export interface MethodsReport {
  methods: {
    name: string;
    title: string;
    parameters: number;
    stepSeconds: number;
    cpuSeconds: number;
    createSeconds: number;
    peakBytes: number;
    samples: number[];
  }[];
  [detail: string]: unknown;
}

/** Measures every method in processes of their own, in turns. */
export async function measureMethods({ methods, rounds, ...task }: MethodsOptions): Promise<MethodsReport> {
  warnOfLoad();
  const unet = await UNet2DConditionModel.fromPretrained(task.model, { subfolder: "unet" });
  const budget = budgetOf(targetLayers(unet));
  await readIntoPageCache(join(task.model, "unet", "diffusion_pytorch_model.safetensors"));
  const results = new Map<string, MethodResult[]>(methods.map((name) => [name, []]));
  for (let round = 1; round <= rounds; round++) {
    for (const [name, own] of results) {
      const config = methodNamed(name, METHODS).config!(budget);
      const adapter = { type: config.adapterType, config: config.toJSON() };
      const { result } = await measureProgram<MethodResult>("method-part.ts", { ...task, adapter });
      own.push(result);
      console.error(`round ${round} of ${rounds}: ${name}, ${result.seconds.map(formatSeconds).join(", ")}`);
    }
  }
  const { latent, batch, tokens, threads, runs } = task;
  return {
    methods: [...results].map(([name, own]) => ({
      ...{ name, title: methodNamed(name, METHODS).title, parameters: own[0]!.parameters },
      stepSeconds: median(own.flatMap(({ seconds }) => seconds)),
      cpuSeconds: median(own.flatMap(({ cpuSeconds }) => cpuSeconds)),
      createSeconds: median(own.map(({ createSeconds }) => createSeconds)),
      peakBytes: Math.max(...own.map(({ peakBytes }) => peakBytes)),
      samples: own.flatMap(({ seconds }) => seconds),
    })),
    ...{ latent, batch, tokens, threads, runs, rounds, environment: environment() },
  };
}

/** The report for people. */
export function methodsTable({ methods }: MethodsReport): string[] {
  const [first] = methods;
  const rows = methods.map(({ title, parameters, stepSeconds, cpuSeconds, peakBytes }) => [
    title,
    `${(parameters / 1e6).toFixed(2)} M`,
    formatSeconds(stepSeconds),
    (stepSeconds / first!.stepSeconds).toFixed(2),
    formatSeconds(cpuSeconds),
    formatMemory(peakBytes),
  ]);
  return formatTable([["method", "trained", "step", "over the first", "processor time", "peak"], ...rows]);
}
