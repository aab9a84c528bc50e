// fera convert: between the formats of adapters, to plain LoRA with frozen gates (convert-lora.ts), and between the formats
// of plain LoRA (convert-plain-lora.ts).

import { resolve } from "node:path";
import { Command } from "commander";
import {
  adapterFormatOf,
  asFeRAAdapter,
  FeRAConfig,
  plainLoraPathProblem,
  readAdapter,
  writeAdapter,
} from "../adapters/index.js";
import { adapterPathProblem, sigmaProblem, toFeRAConfig, UNTOLD_OPTIONS } from "../training/options/adapter-options.js";
import { choice, type OptionSpecs, type OptionValues } from "../training/options/option.js";
import { convertToLora, LORA_OPTIONS, parseGates } from "./convert-lora.js";
import { convertPlainLora, describeKind } from "./convert-plain-lora.js";
import { counted } from "./format.js";
import { addOptions, givenLayers, kebabCase, readOptions } from "./options.js";
import { prepareParent } from "./output-file.js";
import "./platform.js";
import { print, printError } from "./printable.js";
import { UsageError } from "./usage-error.js";

const OPTIONS = {
  to: choice("writes a plain LoRA with frozen gates for other programs, not an adapter of fera's", [
    "kohya",
    "diffusers",
    "peft",
    "comfyui",
  ]),
  ...LORA_OPTIONS,
  ...UNTOLD_OPTIONS,
};

/** Of these, what a plain LoRA has use for: its names, and the model that explains them. */
const PLAIN_OPTIONS = ["--to", "--model", "--device", "--threads"];

/** The command. */
export function convertCommand(): Command {
  const command = new Command("convert")
    .description(
      "Converts an adapter between .safetensors, .pt (the reference implementation's state dict) and a folder, or with " +
        "--to into a plain LoRA: kohya (ComfyUI, A1111, kohya's scripts), diffusers (load_lora_weights, ai-toolkit), peft " +
        "(PeftModel) or, of flow transformers, comfyui (diffusion_model.…). A plain LoRA cannot route, so the gates are frozen: the file acts exactly as the adapter does " +
        "while its gates are those, and the error against live routing is measured and printed. " +
        "Where IN has no configuration, such as a .pt, options say what it does not. A plain LoRA, DoRA, LoKr or LoHa as IN is " +
        "written in the names of another program; kohya's and cloneofsimo's names need --model.",
    )
    .argument("<IN>", "the adapter")
    .argument("<OUT>", "a .safetensors or .pt file; any other name is a folder");
  addOptions(command, OPTIONS);
  return command.action((from: string, to: string) => convert(command, from, to));
}

async function convert(command: Command, from: string, to: string): Promise<void> {
  const options = await readOptions(command, OPTIONS);
  const problem = sigmaProblem(options) ?? (await loraProblem(command, options, to)) ?? pathProblem(options, to);
  if (problem) throw new UsageError(command, problem);
  if (resolve(from) === resolve(to)) throw new UsageError(command, `IN and OUT are the same: ${from}.`);
  const read = await readAdapter(from, toFeRAConfig(options));
  if (!(read.config instanceof FeRAConfig)) {
    const stray = (await givenNames(command, OPTIONS)).find((name) => !PLAIN_OPTIONS.includes(name));
    if (stray) throw new UsageError(command, `${from} is ${describeKind(read.config)}; leave ${stray} out.`);
    return convertPlainLora(command, from, to, read, options);
  }
  const adapter = asFeRAAdapter(read, from);
  const given = await givenNames(command, UNTOLD_OPTIONS);
  if (adapter.hasConfig && given.length > 0) {
    throw new UsageError(command, `${from} has a configuration of its own; leave ${given.join(", ")} out.`);
  }
  const { alpha, routerTau, bands, sigma } = adapter.config;
  const divisor = sigma.rule === "latent" ? ` / ${sigma.divisor}` : "";
  const settings = `alpha ${alpha}, temperature ${routerTau}, ${bands} bands, ${sigma.rule} blur${divisor}`;
  if (!adapter.hasConfig) printError(`${from} holds no configuration; taken: ${settings}.`);
  if (options.to !== undefined) return convertToLora(command, from, to, adapter, { ...options, to: options.to });
  await prepareParent(to);
  await writeAdapter(to, adapter);
  const { layers } = adapter;
  print(`${to}  (${counted(layers.length, "layer")}, ${counted(adapter.state.size, "tensor")})`);
  if (adapterFormatOf(to) === "torch") printError(`A .pt keeps no configuration; remember: ${settings}.`);
}

/** What contradicts itself in the options of a plain LoRA, if anything. */
async function loraProblem(command: Command, options: ConvertOptions, to: string): Promise<string | undefined> {
  if (options.to === undefined) {
    const [stray] = await givenNames(command, LORA_OPTIONS);
    return stray && `${stray} is for plain LoRA: it needs --to kohya, diffusers, peft or comfyui.`;
  }
  const gates = parseGates(options.gates);
  if (gates === undefined) {
    const shown = JSON.stringify(options.gates);
    return `--gates must be mean, timestep:N, or numbers like 0.2,0.5,0.3; got ${shown}.`;
  }
  const given = await givenNames(command, LORA_OPTIONS);
  if (options.model === undefined) {
    const stray = given.find((name) => name !== "--gates");
    if (stray) return `${stray} needs --model.`;
  } else if (options.data === undefined) {
    const stray = given.find((name) => ["--limit", "--resolution"].includes(name));
    if (stray) return `${stray} needs --data.`;
  } else {
    const stray = given.find((name) => ["--prompt", "--num-images", "--steps"].includes(name));
    if (stray) return `${stray} is for images that are sampled; leave it or --data out.`;
  }
  return plainLoraPathProblem(to, options.to);
}

type ConvertOptions = OptionValues<typeof OPTIONS>;

const pathProblem = (options: ConvertOptions, to: string): string | undefined =>
  options.to === undefined ? adapterPathProblem(to) : undefined;

/** The flags among some options that were given. */
async function givenNames(command: Command, specs: OptionSpecs): Promise<string[]> {
  const layers = await givenLayers(command, specs);
  const names = layers.flatMap(({ values }) => Object.keys(values).filter((name) => values[name] !== undefined));
  return names.map((name) => `--${kebabCase(name)}`);
}
