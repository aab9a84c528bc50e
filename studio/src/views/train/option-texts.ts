// Options as a form shows them: their names as words, and their values as texts and back.

import type { OptionDescription } from "../../../../src/studio/protocol.js";

/** Parts of names that are not plain words. */
const WORDS: Readonly<Record<string, string>> = {
  lr: "learning rate",
  ema: "EMA",
  vae: "VAE",
  snr: "SNR",
  fecl: "FECL",
  p2: "P2",
  rslora: "rsLoRA",
  tau: "τ",
  dtype: "number type",
  num: "number of",
};

/** "learningRate", from its flag → "Learning rate". */
export function labelOf({ flag }: Pick<OptionDescription, "flag">): string {
  const words = flag.replace(/^--/, "").split("-");
  const text = words.map((word) => WORDS[word] ?? word).join(" ");
  return text[0]!.toUpperCase() + text.slice(1);
}

/** Its help as a sentence, and its default where there is one. */
export function hintOf({ help, kind, default: usual }: OptionDescription): string {
  const told = `${help[0]!.toUpperCase()}${help.slice(1).replace(/ \(repeatable\)$/, "")}.`;
  const sentence = kind === "list" ? `${told} One a line.` : told;
  if (usual === undefined || kind === "switch" || help.includes("by default")) return sentence;
  return `${sentence} By default ${formatValue(usual, ", ")}.`;
}

/** A value as it is typed; lists have a line for each. */
export function formatValue(value: unknown, between = "\n"): string {
  if (value === undefined || value === null) return "";
  return Array.isArray(value) ? value.map(String).join(between) : String(value);
}

/**
 * What was typed, as a value: what is no number stays text, for the check to refuse by name.
 *
 * @returns Undefined where nothing was typed: the default.
 */
export function parseValue({ kind }: Pick<OptionDescription, "kind">, text: string): unknown {
  if (kind === "list") {
    const lines = text.split("\n").map((line) => line.trim());
    const items = lines.filter((line) => line !== "");
    return items.length === 0 ? undefined : items;
  }
  if (text.trim() === "") return undefined;
  if (kind !== "integer" && kind !== "number") return text;
  const number = Number(text);
  return Number.isFinite(number) ? number : text;
}

/** Whether a setting is what would be taken without it. */
export function isUsual({ default: usual, kind }: OptionDescription, value: unknown): boolean {
  if (value === undefined) return true;
  const other = usual ?? (kind === "switch" ? false : undefined);
  return JSON.stringify(value) === JSON.stringify(other);
}

/** Options whose name, flag or help has every word. */
export function searchOptions(options: readonly OptionDescription[], text: string): OptionDescription[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return options.filter((option) => {
    const searched = [option.name, option.flag, labelOf(option), option.help].join("\n").toLowerCase();
    return words.every((word) => searched.includes(word));
  });
}

/** The option that a problem is about: the one it names, else the first whose flag or name stands in its sentence. */
export function optionOfProblem(
  { option, message }: { option?: string | undefined; message: string },
  options: readonly OptionDescription[],
): string | undefined {
  if (option !== undefined) return option;
  const found = message.match(/--[a-z\d-]*[a-z\d]/g) ?? [];
  return found.map((flag) => options.find((known) => known.flag === flag)?.name).find((name) => name !== undefined);
}
