// The text that A1111's web UI and its kin keep in images, under "parameters": the prompt, "Negative prompt: …", and a last
// line of "Name: value" pairs. Adapters stand in the prompt, as <lora:NAME:SCALE>.

import { SAMPLERS, type SamplerName, samplerNamed } from "./sampler-names.js";
import { type AdapterSetting, type FoundSettings, type GenerationSettings, numberIn, parsedJson } from "./settings.js";

const NEGATIVE = "Negative prompt:";
/** As many pairs at least make a last line one of settings; fewer, and it is the prompt's. */
const FEWEST_PAIRS = 3;
const NAME = /^[\p{L}\p{N}_][\p{L}\p{N}_ \-/]+$/u;
/** Name and numbers; further ones are for single parts of a model. */
const ADAPTER_TAG = /<lora:([^:<>]+)((?::[^:<>]*)*)>/g;
const MODEL_ENDING = /\.(safetensors|ckpt|pt)$/i;

/**
 * Settings as A1111 tells them.
 *
 * Its form has no way to quote a prompt: spaces at the ends of lines are lost to its readers, and a line of the prompt
 * that begins with "Negative prompt:" is not taken for the prompt's. A zero character becomes U+FFFD, as PNG has none.
 */
export function parametersText(settings: GenerationSettings): string {
  const { prompt, negativePrompt, sampler, width, height, clipSkip, batch, model, adapters = [] } = settings;
  const tags = adapters.map(({ name, scale }) => `<lora:${tagName(name)}:${scale}>`).join("");
  const pairs: [string, string | number | undefined][] = [
    ["Steps", settings.steps],
    ["Sampler", sampler && (SAMPLERS[sampler as SamplerName]?.a1111 ?? sampler)],
    ["Schedule type", settings.scheduleType],
    ["CFG scale", settings.guidanceScale],
    ["Seed", settings.seed],
    ["Size", width && height ? `${width}x${height}` : undefined],
    ["Model", model?.replace(MODEL_ENDING, "")],
    ["Denoising strength", settings.strength],
    ["Batch size", batch?.size],
    ["Batch pos", batch?.position],
    // Counted from the end there: 1 is the last layer.
    ["Clip skip", clipSkip ? clipSkip + 1 : undefined],
    ["Guidance rescale", settings.guidanceRescale || undefined],
    ["Init image", settings.startImage],
  ];
  const lines = [
    prompt + (tags && prompt && " ") + tags,
    ...(negativePrompt ? [`${NEGATIVE} ${negativePrompt}`] : []),
    pairs.flatMap(([name, value]) => (value === undefined ? [] : [`${name}: ${inPair(value)}`])).join(", "),
  ];
  return lines.join("\n").replaceAll("\0", "\ufffd");
}

/** Quoted where it would end its pair. */
const inPair = (value: string | number): string => (/[,:\n"]/.test(`${value}`) ? JSON.stringify(value) : `${value}`);

/** What the tag would end at cannot be in it. */
const tagName = (name: string): string => name.replace(MODEL_ENDING, "").replace(/[:<>]/g, "_");

/** Reads such a text; of A1111 itself, too, and of what writes as it does. */
export function parseParametersText(text: string): FoundSettings {
  const lines = text.trim().split("\n");
  const last = pairsOf(lines.at(-1)!);
  const pairs = last.size < FEWEST_PAIRS ? new Map<string, string>() : last;
  if (pairs.size > 0) lines.pop();

  // The negative prompt begins at its first mark and goes on to the end; further marks in it are dropped by A1111, too.
  const positive: string[] = [];
  let negative: string[] | undefined;
  for (const line of lines.map((each) => each.trim())) {
    if (line.startsWith(NEGATIVE)) {
      negative ??= [];
      negative.push(line.slice(NEGATIVE.length).trim());
    } else (negative ?? positive).push(line);
  }
  const { prompt, adapters } = withoutTags(positive.join("\n"));
  const settings: GenerationSettings = { prompt };
  if (negative) settings.negativePrompt = negative.join("\n");
  if (adapters.length > 0) settings.adapters = adapters;
  return { format: "a1111", settings, others: takePairs(pairs, settings) };
}

/** `Name: value` pairs of a line, between commas; a value that has some itself is quoted, as JSON quotes. */
function pairsOf(line: string): Map<string, string> {
  const pairs = new Map<string, string>();
  let start = 0;
  while (start < line.length) {
    const comma = endOf(line, ",", start);
    const colon = line.indexOf(":", start);
    if (colon < 0) break;
    if (colon > comma) {
      start = comma + 1;
      continue;
    }
    const name = line.slice(start, colon).trim();
    let from = colon + 1;
    while (line[from] === " ") from++;
    const quoteEnd = line[from] === '"' ? closingQuote(line, from) : undefined;
    const end = endOf(line, ",", quoteEnd ?? from);
    const value = line.slice(from, end).trim();
    if (NAME.test(name)) pairs.set(name, quoteEnd === undefined ? value : unquoted(value));
    start = end + 1;
  }
  return pairs;
}

function endOf(line: string, mark: string, from: number): number {
  const at = line.indexOf(mark, from);
  return at < 0 ? line.length : at;
}

/** Behind the quote that ends what begins at `from`; undefined where none does. */
function closingQuote(line: string, from: number): number | undefined {
  for (let i = from + 1; i < line.length; i++) {
    if (line[i] === "\\") i++;
    else if (line[i] === '"') return i + 1;
  }
  return undefined;
}

function unquoted(value: string): string {
  const content = parsedJson(value);
  return typeof content === "string" ? content : value;
}

/** Puts what is known into the settings. @returns The rest. */
function takePairs(pairs: ReadonlyMap<string, string>, settings: GenerationSettings): string[] {
  const others: string[] = [];
  const batch: Partial<NonNullable<GenerationSettings["batch"]>> = {};
  for (const [name, value] of pairs) {
    if (!takePair(name, value, settings, batch)) others.push(`${name}: ${value}`);
  }
  const { size, position } = batch;
  if (size !== undefined) settings.batch = { size, position: position ?? 0 };
  return others;
}

const NUMBERS: Readonly<Record<string, "steps" | "guidanceScale" | "guidanceRescale" | "seed" | "strength">> = {
  Steps: "steps",
  "CFG scale": "guidanceScale",
  "Guidance rescale": "guidanceRescale",
  Seed: "seed",
  "Denoising strength": "strength",
};

/** Older versions name the spread of the steps behind the sampler: "DPM++ 2M Karras". */
const SAMPLER_AND_SPREAD = /^(.+) (Karras|Exponential)$/i;

function takePair(
  name: string,
  value: string,
  settings: GenerationSettings,
  batch: { size?: number; position?: number },
): boolean {
  const number = numberIn(value);
  const known = Object.hasOwn(NUMBERS, name) ? NUMBERS[name] : undefined;
  if (known) {
    if (number === undefined) return false;
    settings[known] = number;
    return true;
  }
  switch (name) {
    case "Sampler": {
      const [, plain, spread] = (samplerNamed(value) ? undefined : SAMPLER_AND_SPREAD.exec(value)) ?? [];
      const sampler = samplerNamed(plain ?? value);
      if (!sampler) return false;
      settings.sampler = sampler;
      if (spread) settings.scheduleType = spread;
      return true;
    }
    case "Schedule type":
      if (value !== "Automatic") settings.scheduleType = value;
      return true;
    case "Size": {
      const [, width, height] = /^(\d+)x(\d+)$/.exec(value) ?? [];
      if (!width || !height) return false;
      settings.width = Number(width);
      settings.height = Number(height);
      return true;
    }
    case "Model":
      settings.model = value;
      return true;
    case "Init image":
      settings.startImage = value;
      return true;
    case "Clip skip":
      if (number === undefined || number < 1) return false;
      if (number > 1) settings.clipSkip = number - 1;
      return true;
    case "Batch size":
    case "Batch pos":
      if (number === undefined) return false;
      batch[name === "Batch size" ? "size" : "position"] = number;
      return true;
    // The model is told by its name, adapters by theirs.
    case "Model hash":
    case "Lora hashes":
    case "Version":
      return true;
    default:
      return false;
  }
}

function withoutTags(prompt: string): { prompt: string; adapters: AdapterSetting[] } {
  const adapters: AdapterSetting[] = [];
  const rest = prompt.replace(ADAPTER_TAG, (tag: string, name: string, numbers: string) => {
    // The text encoder's share, and where it differs the denoiser's: what an adapter of the denoiser goes by.
    const given = numbers.split(":").slice(1);
    const scale = given.length === 0 ? 1 : numberIn(given[1] ?? given[0]!);
    if (scale === undefined) return tag;
    adapters.push({ name, scale });
    return "";
  });
  return { prompt: adapters.length > 0 ? rest.trim() : rest, adapters };
}
