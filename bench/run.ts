// The bench's program: one command per question. `npm run bench -- --help`.

import { writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { Command, InvalidArgumentError, Option } from "commander";
import { formatTable } from "../src/cli/format.js";
import { FeRAConfig } from "../src/index.js";
import { WEIGHT_TYPES, type WeightType } from "../src/models/index.js";
import { BASELINE_MODES, type BaselineMode, baselinePython } from "./baseline.js";
import { convolutionTable, measureConvolutions } from "./convolutions.js";
import { layerTable, measureLayers } from "./layers.js";
import { bestRates, machineRates } from "./machine.js";
import { ADAPTED_METHODS, measureMethods, methodsTable } from "./methods.js";
import { profileTable, profileTables, readProfile } from "./profile-summary.js";
import { REAL_MODEL_NAMES } from "./real-models.js";
import { countFlops, type Flops, liveBytes, stepGraph } from "./roofline.js";
import { AXES, type Axis, measureScale, plotScale, scaleTable } from "./scale.js";
import { measureSd15, sd15Table } from "./sd15.js";
import { sd15Folder } from "./sd15-weights.js";
import { measureSize, prepareSize, removeSize, type SizeOptions, sizeTable } from "./sizes.js";
import { measureSmall, smallTable } from "./small.js";
import { formatMemory } from "./statistics.js";
import { measureTrainings, trainingsTable } from "./trainings.js";
import { plotWeightTypes } from "./weight-types-plot.js";

interface CommonOptions {
  json?: string;
  threads: number;
}

interface StepOptions extends CommonOptions {
  model?: string;
  latent: number;
  batch: number;
  tokens: number;
  rank: number;
  experts: number;
  feclWeight: number;
  matching: "path" | "name";
  runs: number;
}

interface BaselineFlags {
  baseline?: boolean;
  peer?: boolean;
  baselineModes: BaselineMode[];
  peerModes?: BaselineMode[];
  baselineTimeout: number;
  python?: string;
  rounds: number;
}

interface SizeFlags {
  prepare?: boolean;
  remove?: boolean;
  profile?: string;
}

const program = new Command("bench").description("Measures this library, the machine under it, and PyTorch beside it.");

stepCommand("sd15", "time and memory of FeRA's step at Stable Diffusion 1.5's size")
  .addOption(new Option("--rounds <n>", "processes per side, in turns").argParser(integer).default(2))
  .addOption(
    new Option("--dtypes <list>", `how frozen weights are kept, in turns: of ${WEIGHT_TYPES.join(", ")}`)
      .argParser((text) => listOf(text, WEIGHT_TYPES))
      .default(["float32"]),
  )
  .option("--profile", "kernel time by family of operators, by phase and by layer")
  .option("--step-options <json>", "more options for compileTrainStep", (text: string) => JSON.parse(text))
  .addOption(quickOption())
  .action(
    async (
      options: StepOptions &
        BaselineFlags & { dtypes: WeightType[]; profile?: boolean; stepOptions?: object; quickMachine?: boolean },
    ) => {
      const report = await measureSd15({
        ...(await settingsOf(options)),
        threads: options.threads,
        runs: options.runs,
        rounds: options.rounds,
        baseline: baselineOf(options),
        dtypes: options.dtypes,
        profile: options.profile ?? false,
        stepOptions: options.stepOptions as Record<string, unknown> | undefined,
        machineCases: options.quickMachine ? QUICK_CASES : undefined,
      });
      await finish(options, report, sd15Table(report));
    },
  );

stepCommand("scale", "time and memory against batch, resolution, rank and experts, with what is expected")
  .addOption(new Option("--axes <list>", `of ${AXES.join(", ")}`).argParser(axes).default([...AXES]))
  .addOption(new Option("--batches <list>", "values").argParser(integers).default([1, 2, 4, 8]))
  .addOption(new Option("--latents <list>", "values").argParser(integers).default([32, 48, 64, 96]))
  .addOption(new Option("--ranks <list>", "values").argParser(integers).default([1, 4, 16, 64]))
  .addOption(new Option("--expert-counts <list>", "values").argParser(integers).default([1, 2, 3, 4, 8]))
  .option("--plot <file>", "a PNG of all curves")
  .action(
    async (
      options: StepOptions & {
        axes: Axis[];
        batches: number[];
        latents: number[];
        ranks: number[];
        expertCounts: number[];
        plot?: string;
      },
    ) => {
      const all = {
        batch: options.batches,
        latent: options.latents,
        rank: options.ranks,
        experts: options.expertCounts,
      };
      const report = await measureScale({
        reference: await settingsOf(options),
        values: Object.fromEntries(options.axes.map((axis) => [axis, all[axis]])),
        threads: options.threads,
        runs: options.runs,
      });
      if (options.plot !== undefined) await plotScale(options.plot, report);
      await finish(options, report, scaleTable(report));
    },
  );

stepCommand("roofline", "the step's counted operations; nothing is run").action(async (options: StepOptions) => {
  const { UNet2DConditionModel } = await import("../src/index.js");
  const { model, config, shape } = await settingsOf(options);
  const graph = stepGraph(await UNet2DConditionModel.fromPretrained(model, { subfolder: "unet" }), config, shape);
  const report = { flops: countFlops(graph), liveBytes: liveBytes(graph), nodes: graph.nodes.length };
  const rows = (Object.keys(report.flops) as (keyof Flops)[]).map((family) => [
    family,
    `${(report.flops[family] / 1e9).toPrecision(4)} GFLOP`,
  ]);
  await finish(options, report, [...formatTable(rows), `values alive at once: ${formatMemory(report.liveBytes)}`]);
});

command("machine", "the best rates of products and convolutions through ONNX Runtime")
  .addOption(quickOption())
  .action(async (options: CommonOptions & { quickMachine?: boolean }) => {
    const choice = options.quickMachine ? { cases: QUICK_CASES } : {};
    const report = bestRates(await machineRates(options.threads, choice), await machineRates(options.threads, choice));
    const rows = report.rates.map(({ kind, size, from, to, plain, optimized }) => [
      `${kind} ${size}, ${from} → ${to}`,
      plain.toFixed(0),
      optimized.toFixed(0),
    ]);
    await finish(options, report, formatTable([["GFLOP/s", "plain", "optimized"], ...rows]));
  });

command("convolutions", "transformed convolutions beside ONNX Runtime's own, shape by shape")
  .addOption(new Option("--rounds <n>", "runs of each, in turns").argParser(integer).default(9))
  .action(async (options: CommonOptions & { rounds: number }) => {
    const comparisons = await measureConvolutions(options.threads, options.rounds);
    await finish(options, comparisons, convolutionTable(comparisons));
  });

command("layers", "frozen layers kind by kind: time of one thread and error, for every way to keep their weights")
  .addOption(
    new Option("--dtypes <list>", `of ${WEIGHT_TYPES.join(", ")}`)
      .argParser((text) => listOf(text, WEIGHT_TYPES))
      .default(["float32", "float16", "bfloat16", "int8", "nf4"]),
  )
  .addOption(new Option("--rounds <n>", "runs of each, in turns").argParser(integer).default(9))
  .action(async (options: CommonOptions & { dtypes: WeightType[]; rounds: number }) => {
    const costs = await measureLayers(options.dtypes, options.rounds);
    await finish(options, costs, layerTable(costs));
  });

command("methods", "time and memory of the study's methods at Stable Diffusion 1.5's size, at equal parameters")
  .option("--model <folder>", "a UNet in diffusers' layout instead of Stable Diffusion 1.5's")
  .addOption(
    new Option("--methods <list>", `of ${ADAPTED_METHODS.join(", ")}; the others are compared with the first`)
      .argParser((text) => listOf(text, ADAPTED_METHODS))
      .default(ADAPTED_METHODS),
  )
  .addOption(new Option("--latent <n>", "side of the latents").argParser(integer).default(64))
  .addOption(new Option("--batch <n>", "samples per step").argParser(integer).default(1))
  .addOption(new Option("--tokens <n>", "of the text").argParser(integer).default(77))
  .addOption(new Option("--runs <n>", "steady steps per process").argParser(integer).default(3))
  .addOption(new Option("--rounds <n>", "processes per method, in turns").argParser(integer).default(1))
  .action(
    async ({
      json,
      model,
      ...options
    }: CommonOptions & {
      model?: string;
      methods: string[];
      latent: number;
      batch: number;
      tokens: number;
      runs: number;
      rounds: number;
    }) => {
      const report = await measureMethods({ ...options, model: model ?? (await sd15Folder()) });
      await finish({ json, threads: options.threads }, report, methodsTable(report));
    },
  );

command("trainings", "what the embedded model learns with frozen weights kept in other types, over seeds")
  .addOption(
    new Option("--dtypes <list>", `of ${WEIGHT_TYPES.join(", ")}; the others are compared with the first`)
      .argParser((text) => listOf(text, WEIGHT_TYPES))
      .default(["float32", "int8"]),
  )
  .addOption(new Option("--seeds <n>", "trainings of each").argParser(integer).default(5))
  .addOption(new Option("--steps <n>", "optimizer steps of a training").argParser(integer).default(150))
  .action(async (options: CommonOptions & { dtypes: WeightType[]; seeds: number; steps: number }) => {
    const report = await measureTrainings(options);
    await finish(options, report, trainingsTable(report));
  });

command("sizes", "models of published sizes with random weights: time, memory and error of a step")
  .addOption(new Option("--model <name>", "which").choices(REAL_MODEL_NAMES).makeOptionMandatory())
  .addOption(
    new Option("--dtypes <list>", `how frozen weights are kept, in turns: of ${WEIGHT_TYPES.join(", ")}`)
      .argParser((text) => listOf(text, WEIGHT_TYPES))
      .default(["nf4"]),
  )
  .addOption(
    new Option("--part <what>", "a step of training or of sampling").choices(["train", "sample"]).default("train"),
  )
  .addOption(new Option("--pixels <n>", "side of the image").argParser(integer).default(512))
  .addOption(new Option("--tokens <n>", "of the text; default: a usual prompt's").argParser(integer))
  .addOption(new Option("--rank <n>", "of each expert").argParser(integer).default(4))
  .addOption(new Option("--experts <n>", "per adapted layer").argParser(integer).default(3))
  .addOption(new Option("--fecl-weight <x>", "weight of the consistency loss").argParser(Number).default(0.1))
  .addOption(new Option("--runs <n>", "steps after the first").argParser(Number).default(1))
  .option("--gradient-checkpointing", "compute activations again in the backward pass")
  .option("--compare", "how far predictions or gradients are off those of the first of --dtypes")
  .option("--profile <prefix>", "write a trace of every kernel to files that begin so")
  .option("--prepare", "only write what is written once")
  .option("--remove", "remove what is written once, at the end")
  .action(async (options: CommonOptions & Omit<SizeOptions, "profilePrefix"> & SizeFlags) => {
    const { prepare, remove, profile, ...rest } = options;
    const settings: SizeOptions = {
      ...rest,
      gradientCheckpointing: options.gradientCheckpointing ?? false,
      compare: options.compare ?? false,
      profilePrefix: profile,
    };
    try {
      if (prepare) return await prepareSize(settings);
      const report = await measureSize(settings);
      await finish(options, report, sizeTable(report));
    } finally {
      if (remove) await removeSize(options.model);
    }
  });

baselineOptions(command("small", "steps per second at the embedded model's size"))
  .addOption(new Option("--batch <n>", "images per step").argParser(integer).default(8))
  .addOption(new Option("--runs <n>", "steps per process").argParser(integer).default(50))
  .addOption(new Option("--rounds <n>", "processes per side, in turns").argParser(integer).default(2))
  .action(async (options: CommonOptions & BaselineFlags & { batch: number; runs: number }) => {
    const { batch: batchSize, threads, runs, rounds } = options;
    const report = await measureSmall({ batchSize, threads, runs, rounds, baseline: baselineOf(options) });
    await finish(options, report, smallTable(report));
  });

program
  .command("plot-types")
  .description("a PNG of error against time for ways to keep frozen weights")
  .argument("<picture>", "PNG file")
  .argument("<reports...>", "JSON files of sd15, with a title each: FILE=TITLE")
  .action(async (picture: string, reports: string[]) => {
    const pairs = reports.map((text) => /^(.+?)(?:=(.*))?$/.exec(text)!);
    await plotWeightTypes(
      picture,
      pairs.map(([, file]) => file!),
      pairs.map(([, file, title]) => title ?? file!),
    );
  });

program
  .command("profile")
  .description("kernel time from an ONNX Runtime trace")
  .argument("<trace>", "JSON file")
  .argument("[runs]", "runs that it holds", integer, 1)
  .action((trace: string, runs: number) => {
    const profile = readProfile(trace, runs);
    console.log([...profileTables(profile), "", ...profileTable(profile.operators)].join("\n"));
  });

/** For trying the bench out: the rates of so small cases are no roofline. */
const QUICK_CASES = [
  { kind: "gemm", size: 128, from: 128, to: 128 },
  { kind: "conv", size: 16, from: 32, to: 32 },
] as const;

try {
  await program.parseAsync();
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
}

function command(name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .option("--json <file>", "also write everything measured")
    .addOption(new Option("--threads <n>", "of both sides").argParser(integer).default(availableParallelism()));
}

/** A command about one step of a UNet. */
function stepCommand(name: string, description: string): Command {
  const made = command(name, description)
    .option(
      "--model <folder>",
      "a UNet in diffusers' layout instead of Stable Diffusion 1.5's, for trying the bench out",
    )
    .addOption(new Option("--latent <n>", "side of the latents").argParser(integer).default(64))
    .addOption(new Option("--batch <n>", "samples per step").argParser(integer).default(1))
    .addOption(new Option("--tokens <n>", "of the text").argParser(integer).default(77))
    .addOption(new Option("--rank <n>", "of each expert").argParser(integer).default(4))
    .addOption(new Option("--fecl-weight <x>", "weight of the consistency loss").argParser(Number).default(0.1))
    .addOption(new Option("--experts <n>", "per adapted layer").argParser(integer).default(3))
    .addOption(
      new Option("--matching <how>", "name: the reference's layers (96); path: the output projections too (128)")
        .choices(["path", "name"])
        .default("path"),
    )
    .addOption(new Option("--runs <n>", "steady steps per process").argParser(integer).default(3));
  return name === "sd15" ? baselineOptions(made) : made;
}

function baselineOptions(made: Command): Command {
  return made
    .option("--baseline", "measure PyTorch on the same step, in turns with ours")
    .option("--peer", "the same as --baseline")
    .addOption(new Option("--peer-modes <list>", "the same as --baseline-modes").argParser(modes))
    .addOption(
      new Option("--baseline-modes <list>", `of ${BASELINE_MODES.join(", ")}`)
        .argParser(modes)
        .default(["eager", "compile"]),
    )
    .addOption(new Option("--baseline-timeout <seconds>", "per process").argParser(integer).default(3600))
    .option("--python <path>", "default: FERA_BASELINE_PYTHON, or what bench/baseline/setup.sh made");
}

function quickOption(): Option {
  return new Option(
    "--quick-machine",
    "tiny shapes for the machine's rates: the roofline is then worthless",
  ).hideHelp();
}

function baselineOf({ baseline, peer, baselineModes, peerModes, baselineTimeout, python }: BaselineFlags) {
  if (!baseline && !peer) return undefined;
  return { python: baselinePython(python), modes: peerModes ?? baselineModes, timeoutSeconds: baselineTimeout };
}

async function settingsOf({ model, latent, batch, tokens, rank, experts, feclWeight, matching }: StepOptions) {
  return {
    model: model ?? (await sd15Folder()),
    config: new FeRAConfig({ rank, numExperts: experts, feclWeight, matching }),
    shape: { batchSize: batch, latentHeight: latent, latentWidth: latent, tokens },
  };
}

async function finish({ json }: CommonOptions, report: object, lines: readonly string[]): Promise<void> {
  if (json !== undefined) await writeFile(json, `${JSON.stringify(report, null, 2)}\n`);
  console.log(lines.join("\n"));
}

function integer(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError("It must be a positive integer.");
  return value;
}

function integers(text: string): number[] {
  return text.split(",").map(integer);
}

function axes(text: string): Axis[] {
  return listOf(text, AXES);
}

function modes(text: string): BaselineMode[] {
  return listOf(text, BASELINE_MODES);
}

function listOf<Name extends string>(text: string, known: readonly Name[]): Name[] {
  return text.split(",").map((name) => {
    if (!known.includes(name as Name)) throw new InvalidArgumentError(`Known are ${known.join(", ")}.`);
    return name as Name;
  });
}
