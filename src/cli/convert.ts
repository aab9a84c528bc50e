// fera convert: between the three formats of adapters.

import { resolve } from "node:path";
import { Command } from "commander";
import { adapterFormatOf, readAdapter, writeAdapter } from "../fera/index.js";
import { adapterPathProblem, sigmaProblem, toFeRAConfig, UNTOLD_OPTIONS } from "./fera-options.js";
import { counted } from "./format.js";
import { addOptions, givenLayers, kebabCase, readOptions } from "./options.js";
import { prepareParent } from "./output-file.js";
import "./platform.js";
import { UsageError } from "./usage-error.js";

/** The command. */
export function convertCommand(): Command {
  const command = new Command("convert")
    .description(
      "Converts an adapter between .safetensors, .pt (the reference implementation's state dict) and a folder. " +
        "The options say what an IN without a configuration, such as a .pt, does not.",
    )
    .argument("<IN>", "the adapter")
    .argument("<OUT>", "a .safetensors or .pt file; any other name is a folder");
  addOptions(command, UNTOLD_OPTIONS);
  return command.action((from: string, to: string) => convert(command, from, to));
}

async function convert(command: Command, from: string, to: string): Promise<void> {
  const options = await readOptions(command, UNTOLD_OPTIONS);
  const problem = sigmaProblem(options) ?? adapterPathProblem(to);
  if (problem) throw new UsageError(command, problem);
  if (resolve(from) === resolve(to)) throw new UsageError(command, `IN and OUT are the same: ${from}.`);
  const format = adapterFormatOf(to);
  const adapter = await readAdapter(from, toFeRAConfig(options));
  const [flags] = (await givenLayers(command, UNTOLD_OPTIONS)).slice(-1);
  const given = Object.entries(flags!.values).flatMap(([name, value]) => (value === undefined ? [] : [name]));
  if (adapter.hasConfig && given.length > 0) {
    const named = given.map((name) => `--${kebabCase(name)}`).join(", ");
    throw new UsageError(command, `${from} has a configuration of its own; leave ${named} out.`);
  }
  await prepareParent(to);
  await writeAdapter(to, adapter);
  const { layers } = adapter.layout;
  console.log(`${to}  (${counted(layers.length, "layer")}, ${counted(adapter.state.size, "tensor")})`);
  const { alpha, routerTau, bands, sigma } = adapter.config;
  const divisor = sigma.rule === "latent" ? ` / ${sigma.divisor}` : "";
  const settings = `alpha ${alpha}, temperature ${routerTau}, ${bands} bands, ${sigma.rule} blur${divisor}`;
  if (!adapter.hasConfig) console.error(`${from} holds no configuration; taken: ${settings}.`);
  if (format === "torch") console.error(`A .pt keeps no configuration; remember: ${settings}.`);
}
