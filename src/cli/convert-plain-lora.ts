// The part of fera convert that takes LoRA and its relatives from the format of one program into another's.

import type { Command } from "commander";
import {
  type AdapterConfig,
  type AdapterPart,
  adapterFormatOf,
  DoRAConfig,
  defaultLoraNames,
  isUNet,
  type LoadedAdapter,
  LoHaConfig,
  LoKrConfig,
  type LoRAConfig,
  type PlainLoraFormat,
  type TargetLayer,
  TLoRAConfig,
  targetLayers,
  writeAdapter,
  writeLora,
  writeLycoris,
} from "../adapters/index.js";
import { counted } from "./format.js";
import { loadAnyPipeline } from "./model-options.js";
import { prepareParent } from "./output-file.js";
import { print, printError } from "./printable.js";
import { UsageError } from "./usage-error.js";

type LoraOptions = Parameters<typeof loadAnyPipeline>[1] & {
  to?: PlainLoraFormat | undefined;
  model?: string | undefined;
};

/** A kind of adapter in words. */
export function describeKind({ adapterType }: AdapterConfig): string {
  const words: Readonly<Record<string, string>> = {
    lora: "a plain LoRA",
    dora: "a DoRA",
    lokr: "a LoKr",
    loha: "a LoHa",
    "t-lora": "a T-LoRA",
  };
  return words[adapterType] ?? `a ${adapterType} adapter`;
}

/**
 * Writes the same LoRA (DoRA, LoKr, LoHa), text encoders too, in other names, or a T-LoRA in another of fera's formats; what
 * the file holds that is not written is said.
 */
export async function convertPlainLora(
  command: Command,
  from: string,
  to: string,
  adapter: LoadedAdapter,
  options: LoraOptions,
): Promise<void> {
  const { notes = [], textEncoders } = adapter;
  const kind = describeKind(adapter.config);
  const isTimed = adapter.config instanceof TLoRAConfig;
  if (isTimed && options.to !== undefined) {
    throw new UsageError(
      command,
      `${from} is ${kind}, whose ranks follow the timestep: no other program's format can say that.`,
    );
  }
  if (!isTimed && options.model === undefined && !(adapter.layers.length > 0 && isUNet(adapter.layers))) {
    throw new UsageError(command, `${from} names layers in a way that only its model explains: give --model.`);
  }
  let model: readonly TargetLayer[] | undefined;
  if (options.model !== undefined) model = targetLayers((await loadAnyPipeline(options.model, options)).denoiser);
  const part = (model && adapter.resolve?.(model)) || adapter;
  const isFolder = adapterFormatOf(to) === "folder";
  const { config } = part;
  const isLycoris = config instanceof LoKrConfig || config instanceof LoHaConfig;
  const usual = isLycoris ? "kohya" : defaultLoraNames(part.layers);
  const names = options.to ?? (isFolder ? "peft" : usual);
  if (isLycoris && (names === "diffusers" || names === "comfyui")) {
    throw new UsageError(command, `${from} is ${kind}, which ${names} has no names for: take --to kohya or --to peft.`);
  }
  if (isLycoris && names === "peft" && !model) {
    throw new UsageError(
      command,
      `PEFT splits the layers of ${kind} by their sizes, which only its model tells: give --model.`,
    );
  }
  for (const note of notes) printError(`${from}: ${note}`);
  await prepareParent(to);
  if (isTimed) await writeAdapter(to, part);
  else if (isLycoris)
    await writeLycoris(to, { ...part, config }, names as "kohya" | "peft", { textEncoders, blocks: model });
  else {
    const parts = new Map([...(textEncoders ?? [])].map(([name, own]) => [name, asLora(own)]));
    await writeLora(to, asLora(part), names, { textEncoders: parts, blocks: model });
  }
  const ofText = [...(textEncoders?.values() ?? [])].reduce((sum, { layers }) => sum + layers.length, 0);
  const more = ofText > 0 ? ` and ${ofText} of text encoders` : "";
  const format = isTimed ? "" : ` for ${names}`;
  print(`${to}  (${kind.replace(/^a /, "")}${format}, ${counted(part.layers.length, "layer")}${more})`);
}

/** DoRA's products have LoRA's configuration. */
function asLora({ config, ...rest }: AdapterPart): AdapterPart<LoRAConfig> {
  return { ...rest, config: config instanceof DoRAConfig ? config.lora : (config as LoRAConfig) };
}
