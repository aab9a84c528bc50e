// The part of fera convert that freezes gates: which gates, over which latents, and what that costs.

import type { Command } from "commander";
import {
  evenTimesteps,
  type FeRAConfig,
  FeRAModel,
  type FreezingError,
  freezeGates,
  freezingError,
  type GatesAtTimestep,
  gatesOverTimesteps,
  type LoadedAdapter,
  meanGates,
  type NoisyLatents,
  type PlainLoraFormat,
  targetLayers,
  writePlainLora,
} from "../adapters/index.js";
import type { ConditioningInputs } from "../diffusion/index.js";
import { ConfigError } from "../errors.js";
import { type AnyPipeline, FlowPipeline, StableDiffusionXLPipeline } from "../pipelines/index.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { encodeImages } from "../training/index.js";
import { anyText, integer, type OptionValues, text } from "../training/options/option.js";
import { describeSkipped, openSplit } from "./datasets.js";
import { counted, formatTable } from "./format.js";
import { interruptible } from "./interrupt.js";
import { checkedResolution, loadAnyPipeline, MODEL_HELP, MODEL_OPTIONS, RUNTIME_OPTIONS } from "./model-options.js";
import { prepareParent } from "./output-file.js";
import { print, printError } from "./printable.js";
import { Progress } from "./progress.js";
import { UsageError } from "./usage-error.js";

/** Options that only a plain LoRA has use for. */
export const LORA_OPTIONS = {
  gates: text(
    "with --to: the frozen gates; their mean over timesteps and images, that at one timestep, or one number per expert",
    "mean|timestep:N|G1,G2,…",
  ).withDefault("mean"),
  model: text(`with --to: ${MODEL_HELP}; gives the latents that the router sees, and the error`, "FOLDER"),
  data: text("with --model: images whose noisy latents are used, a folder or icons:STYLE", "FOLDER"),
  limit: integer("most of these images, spread evenly", { min: 1 }).withDefault(8),
  resolution: integer("side of these images in pixels; by default the model's own size", { min: 1 }),
  prompt: anyText("without --data, the images are sampled with the adapter from this prompt", "PROMPT").withDefault(""),
  numImages: integer("how many are sampled", { min: 1 }).withDefault(4),
  steps: integer("in how many steps", { min: 1 }).withDefault(25),
  timesteps: integer("timesteps for the mean and the error, spread evenly over all", { min: 1 }).withDefault(10),
  seed: integer("of the sampling and of the noise", { min: 0 }).withDefault(0),
  modelConfig: MODEL_OPTIONS.modelConfig,
  ...RUNTIME_OPTIONS,
};

type LoraOptions = OptionValues<typeof LORA_OPTIONS> & { to: PlainLoraFormat };

/** What `--gates` asks for. */
export type GateChoice = { kind: "mean" } | { kind: "timestep"; timestep: number } | { kind: "given"; gates: number[] };

/** Reads `--gates`; undefined where it is none of the three forms. */
export function parseGates(given: string): GateChoice | undefined {
  if (given === "mean") return { kind: "mean" };
  const timestep = /^timestep:(\d{1,9})$/.exec(given);
  if (timestep) return { kind: "timestep", timestep: Number(timestep[1]) };
  const parts = given.split(",").map((part) => part.trim());
  const gates = parts.map(Number);
  return parts.includes("") || !gates.every(Number.isFinite) ? undefined : { kind: "given", gates };
}

/** Freezes the gates, writes the file, measures and prints the error. */
export async function convertToLora(
  command: Command,
  from: string,
  to: string,
  adapter: LoadedAdapter<FeRAConfig>,
  options: LoraOptions,
): Promise<void> {
  const choice = parseGates(options.gates)!;
  const { numExperts } = adapter.config;
  if (choice.kind === "given" && choice.gates.length !== numExperts) {
    const count = counted(numExperts, "expert");
    throw new UsageError(command, `--gates: ${from} has ${count}; got ${counted(choice.gates.length, "gate")}.`);
  }
  if (options.model === undefined) {
    // The gate of a single expert is 1 whatever the latent.
    const gates = choice.kind === "given" ? choice.gates : numExperts === 1 ? [1] : undefined;
    if (!gates) {
      const example = new Array(numExperts).fill((1 / numExperts).toFixed(2)).join(",");
      const advice = `the router needs latents to see. Or give the gates: --gates ${example}`;
      throw new UsageError(command, `--gates ${options.gates} needs --model: ${advice}.`);
    }
    await prepareParent(to);
    await writePlainLora(to, adapter, gates, { to: options.to });
    report(to, adapter, options.to, gates, choice.kind === "given" ? "as given" : "a single expert's");
    print("error against live routing: not measured, that needs --model");
    return;
  }
  await interruptible("Stopping.", (signal) => freezeOnModel(from, to, adapter, choice, options, signal));
}

async function freezeOnModel(
  from: string,
  to: string,
  adapter: LoadedAdapter<FeRAConfig>,
  choice: GateChoice,
  options: LoraOptions,
  signal: AbortSignal,
): Promise<void> {
  await prepareParent(to);
  const pipeline = await loadAnyPipeline(options.model!, options);
  const fera = new FeRAModel(pipeline.denoiser);
  fera.useAdapter(adapter, from);
  pipeline.useAdapters(fera);
  const { scheduler } = pipeline;
  const total = Number(scheduler.config.num_train_timesteps);
  if (choice.kind === "timestep" && choice.timestep >= total) {
    throw new ConfigError(`--gates timestep:${choice.timestep}: this model's timesteps are 0 to ${total - 1}.`);
  }
  const { images, described } = await imagesFor(pipeline, options, signal);
  const noisy: NoisyLatents & ConditioningInputs = {
    ...images,
    scheduler,
    timesteps: evenTimesteps(Math.min(options.timesteps, total), total),
    seed: options.seed,
  };
  const trajectory = await gatesOverTimesteps(fera, noisy);
  const { gates, how } = await chosenGates(choice, trajectory, () =>
    gatesOverTimesteps(fera, { ...noisy, timesteps: [(choice as { timestep: number }).timestep] }),
  );
  const unet = pipeline instanceof FlowPipeline ? undefined : pipeline.unet.config;
  await writePlainLora(to, adapter, gates, {
    to: options.to,
    ...(unet
      ? {
          naming: unet.addition_embed_type === "text_time" ? ("original" as const) : ("diffusers" as const),
          layersPerBlock: unet.blocks[0]?.layers ?? 0,
        }
      : { modelLayers: targetLayers(pipeline.denoiser) }),
  });
  report(to, adapter, options.to, gates, choice.kind === "given" ? how : `${how} of ${described}`);

  const count = noisy.latents.shape[0]!;
  const passes = 3 * count * noisy.timesteps.length;
  const bar = new Progress({ label: "measuring", total: passes, unit: "passes" });
  const error = await freezingError(fera, freezeGates(adapter, gates), noisy, {
    signal,
    onProgress: (done) => bar.update(done),
  }).finally(() => bar.end());
  for (const line of describeError(error, trajectory, described)) print(line);
}

async function chosenGates(
  choice: GateChoice,
  trajectory: readonly GatesAtTimestep[],
  atTimestep: () => Promise<GatesAtTimestep[]>,
): Promise<{ gates: number[]; how: string }> {
  if (choice.kind === "given") return { gates: choice.gates, how: "as given" };
  if (choice.kind === "timestep") {
    return { gates: meanGates(await atTimestep()), how: `at timestep ${choice.timestep}, the mean over noisy latents` };
  }
  const [first, last] = [trajectory[0]!.timestep, trajectory.at(-1)!.timestep];
  const range = `${counted(trajectory.length, "timestep")} (${first} to ${last})`;
  return { gates: meanGates(trajectory), how: `the mean over ${range} and noisy latents` };
}

/** Clean latents with what the UNet is told beside them, and what they are in words. */
async function imagesFor(pipeline: AnyPipeline, options: LoraOptions, signal: AbortSignal) {
  const { data, limit, prompt, numImages, steps, seed } = options;
  if (data !== undefined) {
    const resolution = checkedResolution(pipeline, options.resolution);
    const dataset = await openSplit(data, "all", { size: resolution, limit });
    for (const line of describeSkipped(dataset.skipped)) printError(line);
    const { latents } = await encodeImages(pipeline.vae, dataset, () => signal.throwIfAborted());
    const captions = Array.from({ length: dataset.size }, (_, i) => dataset.caption(i));
    const images = { latents, ...(await conditionsOf(pipeline, captions, latents)) };
    await pipeline.release();
    return { images, described: `${counted(dataset.size, "image")} of ${data}` };
  }
  const bar = new Progress({ label: "sampling", total: steps, unit: "steps" });
  const { latents } = await pipeline
    .generate({
      prompt,
      steps,
      seed,
      numImages,
      guidanceScale: prompt === "" ? 1 : undefined,
      signal,
      onStep: ({ step, steps: visited }) => bar.update(Math.floor((step * steps) / visited)),
    })
    .finally(() => bar.end());
  const captions = new Array<string>(numImages).fill(prompt);
  const images = { latents, ...(await conditionsOf(pipeline, captions, latents)) };
  await pipeline.release();
  const from = `prompt ${JSON.stringify(prompt)}, ${counted(steps, "step")}, seed ${seed}`;
  return { images, described: `${counted(numImages, "image")} sampled with the adapter (${from})` };
}

/** What the UNet is told of uncropped images with these captions. */
async function conditionsOf(
  pipeline: AnyPipeline,
  captions: readonly string[],
  { shape }: Tensor,
): Promise<ConditioningInputs> {
  if (!(pipeline instanceof StableDiffusionXLPipeline)) return pipeline.encodeCaptions(captions);
  const { encoderHiddenStates, textEmbeds } = await pipeline.encodePrompt(captions);
  const size = shape.slice(2).map((side) => side * pipeline.latentScale);
  const timeIds = tensor(Float32Array.from(captions.flatMap(() => [...size, 0, 0, ...size])), [captions.length, 6]);
  return { encoderHiddenStates, addedConditions: { textEmbeds, timeIds } };
}

function report(
  to: string,
  { config, layers }: LoadedAdapter<FeRAConfig>,
  format: PlainLoraFormat,
  gates: readonly number[],
  how: string,
): void {
  const rank = config.numExperts * config.rank;
  print(`${to}  (plain LoRA for ${format}, ${counted(layers.length, "layer")}, rank ${rank}, alpha ${rank})`);
  print(`gates ${gates.map(formatGate).join(", ")}: ${how}`);
}

function describeError(
  { perTimestep, ofOutput, ofEffect }: FreezingError,
  trajectory: readonly GatesAtTimestep[],
  described: string,
): string[] {
  const rows = perTimestep.map((row, i) => [
    String(row.timestep),
    trajectory[i]!.gates.map(formatGate).join(" "),
    percent(row.ofOutput),
    row.ofEffect === undefined ? "" : percent(row.ofEffect),
  ]);
  const means = ["mean", "", percent(ofOutput), ofEffect === undefined ? "" : percent(ofEffect)];
  return [
    `error against live routing over noisy latents of ${described}:`,
    "  ‖frozen − live‖ relative to the adapted output, and to what the adapter changes in it",
    ...formatTable([["timestep", "live gates", "of output", "of change"], ...rows, means]).map((line) => `  ${line}`),
  ];
}

const formatGate = (gate: number): string => gate.toFixed(3);

const percent = (share: number): string => `${(100 * share).toPrecision(3)} %`;
