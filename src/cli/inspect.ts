// fera inspect: says what a file or folder of fera's or diffusers' holds. The descriptions are in describe-*.ts.

import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { Command } from "commander";
import { FormatError } from "../errors.js";
import { openSafetensors } from "../formats/index.js";
import { latestCheckpoint } from "../training/index.js";
import { describeAdapter } from "./describe-adapter.js";
import { describeModel, describePipelineFolder, describeTensors } from "./describe-model.js";
import { describeCheckpoint, describeRun } from "./describe-training.js";
import { interruptible } from "./interrupt.js";
import { loadAdapters, loadPipeline, RUNTIME_OPTIONS } from "./model-options.js";
import { anyText, flag, integer, type OptionValues, text } from "./option-specs.js";
import { addOptions, readOptions } from "./options.js";
import { prepareOutputFile } from "./output-file.js";
import "./platform.js";
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
  ...RUNTIME_OPTIONS,
};

type InspectOptions = OptionValues<typeof OPTIONS>;
type Kind = "adapter" | "checkpoint" | "tensors" | "pipeline" | "model" | "run";

/** The command. */
export function inspectCommand(): Command {
  const command = new Command("inspect")
    .description("Says what an adapter, a training's checkpoint or folder, or a model's folder holds.")
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
    if (model !== undefined && kind !== "adapter") {
      throw new UsageError(command, `--model and --plot are for adapters; ${path} is none.`);
    }
    for (const line of await describe(path, kind, options)) console.log(line);
    if (model !== undefined) await inspectWithModel(path, model, options);
  });
}

function describe(path: string, kind: Kind, { all }: InspectOptions): Promise<string[]> {
  switch (kind) {
    case "adapter":
      return describeAdapter(path, { all });
    case "checkpoint":
      return describeCheckpoint(path);
    case "tensors":
      return describeTensors(path);
    case "pipeline":
      return describePipelineFolder(path);
    case "model":
      return describeModel(path);
    case "run":
      return describeRun(path);
  }
}

/** By what a folder holds, or a file's header says. @throws {FormatError} If it is nothing that is known. */
async function kindOf(path: string): Promise<Kind> {
  const known = await stat(path).catch((cause: Error) => {
    throw new FormatError(path, "there is no such file or folder.", { cause });
  });
  if (known.isDirectory()) return kindOfFolder(path);
  if (/\.(pt|pth)$/i.test(path)) return "adapter";
  if (!/\.safetensors$/i.test(path)) {
    throw new FormatError(path, "is no file that fera reads; name a .safetensors or .pt file, or a folder.");
  }
  const { metadata, entries } = await openSafetensors(path);
  if ("fera_checkpoint" in metadata) return "checkpoint";
  return [...entries.keys()].some((name) => name.startsWith("router.")) ? "adapter" : "tensors";
}

async function kindOfFolder(path: string): Promise<Kind> {
  const names = (await readdir(path)).sort();
  if (names.includes("adapter_config.json")) return "adapter";
  if (names.includes("model_index.json")) return "pipeline";
  if (names.includes("config.json")) return "model";
  if (names.includes("metrics.jsonl") || (await latestCheckpoint(join(path, "checkpoints")))) return "run";
  const shown = names.slice(0, 20).join(", ") || "nothing";
  throw new FormatError(path, `is no adapter, training or model; it holds ${shown}.`);
}

async function inspectWithModel(path: string, model: string, options: InspectOptions): Promise<void> {
  const { plot, prompt, steps, seed, numImages } = options;
  const pipeline = await loadPipeline(model, options);
  await loadAdapters(pipeline, path);
  console.log(`fits ${model}`);
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
  console.log(`routing drawn in ${plot}`);
}
