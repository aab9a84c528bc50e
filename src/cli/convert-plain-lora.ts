// The part of fera convert that takes plain LoRA from the format of one program into another's.

import type { Command } from "commander";
import {
  adapterFormatOf,
  defaultLoraNames,
  isUNet,
  type LoadedLora,
  type PlainLoraFormat,
  type TargetLayer,
  targetLayers,
  writeLora,
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

/** Writes the same LoRA, text encoders too, in other names; what the file holds that is not written is said. */
export async function convertPlainLora(
  command: Command,
  from: string,
  to: string,
  adapter: LoadedLora,
  options: LoraOptions,
): Promise<void> {
  const { notes, textEncoders } = adapter;
  if (options.model === undefined && !(adapter.layers.length > 0 && isUNet(adapter.layers))) {
    throw new UsageError(command, `${from} names layers in a way that only its model explains: give --model.`);
  }
  let model: readonly TargetLayer[] | undefined;
  if (options.model !== undefined) model = targetLayers((await loadAnyPipeline(options.model, options)).unet);
  const part = model ? adapter.resolve(model) : adapter;
  const isFolder = adapterFormatOf(to) === "folder";
  const names = options.to ?? (isFolder ? "peft" : defaultLoraNames(part.layers));
  for (const note of notes) printError(`${from}: ${note}`);
  await prepareParent(to);
  await writeLora(to, part, names, { textEncoders, blocks: model });
  const ofText = [...textEncoders.values()].reduce((sum, { layers }) => sum + layers.length, 0);
  const more = ofText > 0 ? ` and ${ofText} of text encoders` : "";
  print(`${to}  (plain LoRA for ${names}, ${counted(part.layers.length, "layer")}${more})`);
}
