// fera inspect: says what a file or folder of fera's or diffusers' holds. The descriptions are in describe-*.ts.

import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { Command } from "commander";
import { isFeRAState, isTLoRAState } from "../adapters/index.js";
import { FormatError } from "../errors.js";
import { latestCheckpoint } from "../training/index.js";
import { anyText, flag, integer, type OptionValues, text } from "../training/options/option.js";
import { describeAdapter } from "./describe-adapter.js";
import { describeLora, describePeftFolder, describeTLora, loraOf, readPeftConfig } from "./describe-lora.js";
import { describeModel, describePipelineFolder, describeTensors, type LoadingChoice } from "./describe-model.js";
import { describeSingleFile, isSingleFile } from "./describe-single-file.js";
import { describeCheckpoint, describeRun } from "./describe-training.js";
import { interruptible } from "./interrupt.js";
import { loadAdapters, loadAnyPipeline, MODEL_OPTIONS, RUNTIME_OPTIONS } from "./model-options.js";
import { addOptions, readOptions } from "./options.js";
import { prepareOutputFile } from "./output-file.js";
import "./platform.js";
import { openTensorFile, type TensorFile } from "./open-tensor-file.js";
import { print, printable } from "./printable.js";
import { Progress } from "./progress.js";
import { drawRouting } from "./routing-plot.js";
import { UsageError } from "./usage-error.js";

const OPTIONS = {
  all: flag("list every layer of an adapter"),
  model: text("the adapter's model: says whether the two fit; for --plot", "FOLDER"),
  plot: text("draws an adapter's routing along a sampling run into this .png; needs --model", "FILE"),
  prompt: anyText("prompt of the sampling run for --plot", "PROMPT").withDefault(""),
  steps: integer("its steps", { min: 2 }).withDefault(25),
  numImages: integer("its images, over which the gates are averaged", { min: 1 }).withDefault(4),
  seed: integer("its seed", { min: 0 }).withDefault(0),
  variant: MODEL_OPTIONS.variant,
  modelConfig: MODEL_OPTIONS.modelConfig,
  ...RUNTIME_OPTIONS,
};

type InspectOptions = OptionValues<typeof OPTIONS>;
type Kind = "adapter" | "peft" | "pipeline" | "model" | "run" | TensorFile;

/** The command. */
export function inspectCommand(): Command {
  const command = new Command("inspect")
    .description(
      "Says what an adapter, a plain LoRA, a model (a folder, or a checkpoint in one file), or a training's checkpoint or " +
        "folder holds: family, parameters, layers, configuration, gates.",
    )
    .argument("<FILE_OR_FOLDER>");
  addOptions(command, OPTIONS);
  return command.action(async (path: string) => {
    const options = await readOptions(command, OPTIONS);
    const { plot, model } = options;
    if (plot !== undefined && model === undefined) {
      throw new UsageError(command, "--plot needs --model: the routing follows the latents of a sampling run.");
    }
    if (plot !== undefined && !/\.png$/i.test(plot)) {
      throw new UsageError(command, `--plot must end in .png; got ${JSON.stringify(plot)}.`);
    }
    if (plot !== undefined) await prepareOutputFile(plot);
    const kind = await kindOf(path);
    const isOther = (file: TensorFile) => isTLoRAState(file.entries) || loraOf(file) !== undefined;
    const isPlain = kind === "peft" || (typeof kind !== "string" && !isAdapter(kind) && isOther(kind));
    const adapter = isAdapter(kind) || isPlain ? (typeof kind === "string" ? path : kind.path) : undefined;
    if (isPlain && plot !== undefined) {
      throw new UsageError(command, `--plot draws routing; ${path} is a plain LoRA, which routes nothing.`);
    }
    if (model !== undefined && adapter === undefined) {
      throw new UsageError(command, `--model and --plot are for adapters; ${path} is none.`);
    }
    const described = await describe(path, kind, {
      all: options.all,
      variant: options.variant,
      config: options.modelConfig,
    });
    for (const line of described) print(printable(line));
    if (model !== undefined && adapter !== undefined) await inspectWithModel(adapter, model, options);
  });
}

/**
 * What a file or folder holds, in lines that are fit for a terminal.
 *
 * @throws {FormatError} If it is damaged, or nothing that is known; what it seems to be is said.
 */
export async function describePath(
  path: string,
  { all = false, ...choice }: { all?: boolean } & LoadingChoice = {},
): Promise<string[]> {
  return (await describe(path, await kindOf(path), { all, ...choice })).map(printable);
}

async function describe(
  path: string,
  kind: Kind,
  { all, ...choice }: { all: boolean } & LoadingChoice,
): Promise<string[]> {
  switch (kind) {
    case "adapter":
      return describeAdapter(path, { all });
    case "peft": {
      const config = await readPeftConfig(path);
      return config.peft_type === "T_LORA" ? describeTLora(path) : describePeftFolder(path, config);
    }
    case "pipeline":
      return describePipelineFolder(path, choice);
    case "model":
      return describeModel(path, choice);
    case "run":
      return describeRun(path);
  }
  if (isAdapter(kind)) return describeAdapter(kind.path, { all });
  if ("fera_checkpoint" in kind.metadata) return describeCheckpoint(kind.path);
  if (isTLoRAState(kind.entries)) return describeTLora(kind.path);
  const lora = loraOf(kind);
  if (lora) return describeLora(kind, lora);
  return isSingleFile(kind) ? describeSingleFile(kind, choice) : describeTensors(kind);
}

/** By what a folder holds, or a file's content. @throws {FormatError} If it is nothing that is known. */
async function kindOf(path: string): Promise<Kind> {
  const known = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    const missing = cause.code === "ENOENT" || cause.code === "ENOTDIR";
    const what = missing ? "there is no such file or folder" : `cannot be looked at: ${cause.message}`;
    throw new FormatError(path, `${what}.`, { cause });
  });
  if (known.isDirectory()) return kindOfFolder(path);
  return openTensorFile(path);
}

/** A training's checkpoint holds the router under names of its own. */
function isAdapter(kind: Kind): boolean {
  if (typeof kind === "string") return kind === "adapter";
  return isFeRAState(kind.entries) && /\.(safetensors|pt|pth)$/i.test(kind.path);
}

async function kindOfFolder(path: string): Promise<Kind> {
  const names = await readdir(path).then(
    (found) => found.sort(),
    (cause: Error) => {
      throw new FormatError(path, `cannot be listed: ${cause.message}.`, { cause });
    },
  );
  if (names.includes("adapter_config.json")) {
    return (await readPeftConfig(path)).peft_type === "FERA" ? "adapter" : "peft";
  }
  if (names.includes("model_index.json")) return "pipeline";
  if (names.includes("config.json")) return "model";
  if (names.includes("metrics.jsonl") || (await latestCheckpoint(join(path, "checkpoints")))) return "run";
  const files = names.filter((name) => /\.(safetensors|pt|pth)$/i.test(name));
  if (files.length === 1) return openTensorFile(join(path, files[0]!));
  const shown = names.slice(0, 20).join(", ") || "nothing";
  const isData = names.some((name) => /\.(png|jpe?g|webp|svg)$/i.test(name));
  const advice =
    files.length > 1
      ? " Name one of its files."
      : isData
        ? " Images to train on are given to fera train or fera evaluate, as --data."
        : "";
  throw new FormatError(path, `is no adapter, training or model; it holds ${shown}.${advice}`);
}

async function inspectWithModel(path: string, model: string, options: InspectOptions): Promise<void> {
  const { plot, prompt, steps, seed, numImages } = options;
  const pipeline = await loadAnyPipeline(model, options);
  await loadAdapters(pipeline, path);
  print(`fits ${model}`);
  if (plot === undefined) return;
  const bar = new Progress({ label: "sampling", total: steps, unit: "steps" });
  const { route } = await interruptible("Stopping after this step.", (signal) =>
    pipeline.generate({
      prompt,
      steps,
      seed,
      numImages,
      guidanceScale: 1,
      signal,
      onStep: ({ step, steps: visited }) => bar.update(Math.floor((step * steps) / visited)),
    }),
  ).finally(() => bar.end());
  await drawRouting(plot, route!);
  print(`routing drawn in ${plot}`);
}
