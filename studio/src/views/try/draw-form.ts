// What is typed in to draw, what it asks for, and how a file's settings fill it in. Pure.

import type { FoundSettings } from "../../../../src/pipelines/generation-settings/settings.js";
import type { AdapterChoice, DrawnImage, DrawRequest, GridAxis, ModelChoice } from "../../../../src/studio/protocol.js";
import { type GridOption, parseValues } from "./value-list.js";

/** Numbers stay as typed until they are asked for: half a number is none. */
export interface DrawForm {
  model: string;
  prompt: string;
  negativePrompt: string;
  seed: string;
  /** A new seed for every drawing. */
  isSeedNew: boolean;
  steps: string;
  guidanceScale: string;
  /** Empty for the model's own. */
  sampler: string;
  /** Empty for the model's own. */
  width: string;
  height: string;
  /** Scales by the adapters' ids, of those in use. */
  adapters: Readonly<Record<string, number>>;
  compare: boolean;
  hasGrid: boolean;
  x: { option: GridOption; values: string };
  /** No option: a row alone. */
  y: { option: GridOption | ""; values: string };
}

export const EMPTY_FORM: DrawForm = {
  model: "",
  prompt: "",
  negativePrompt: "",
  seed: "1",
  isSeedNew: true,
  steps: "25",
  guidanceScale: "7.5",
  sampler: "",
  width: "",
  height: "",
  adapters: {},
  compare: false,
  hasGrid: false,
  x: { option: "adapterScale", values: "0, 0.5, 1" },
  y: { option: "", values: "" },
};

/** What can be chosen. */
export interface Choices {
  models: readonly ModelChoice[];
  adapters: readonly AdapterChoice[];
  samplers: readonly string[];
}

export type FormField = keyof DrawForm;
export type FormProblems = Partial<Record<FormField, string>>;

const LARGEST_SEED = 2 ** 32 - 1;
const LARGEST_SIDE = 4096;
/** Pictures that take a while: worth a warning. */
export const MANY_PICTURES = 16;
export const MOST_PICTURES = 256;

/** Adapters that fit a model; those whose model is not known may. */
export const fittingAdapters = (adapters: readonly AdapterChoice[], model: string): AdapterChoice[] =>
  adapters.filter((adapter) => adapter.model === undefined || sameName(adapter.model, model));

/** What the form asks for, or what is wrong with it, field by field. */
export function readForm(
  form: DrawForm,
  choices: Choices,
): { request?: DrawRequest; problems: FormProblems; count: number } {
  const problems: FormProblems = {};
  const number = (field: FormField & ("seed" | "steps" | "guidanceScale"), minimum: number, maximum: number) => {
    const text = form[field].trim();
    const value = text === "" ? Number.NaN : Number(text);
    const isWhole = field === "guidanceScale" || Number.isSafeInteger(value);
    if (!(value >= minimum && value <= maximum) || !isWhole) {
      problems[field] =
        `Type a ${field === "guidanceScale" ? "number" : "whole number"} from ${minimum} to ${maximum}.`;
    }
    return value;
  };
  const side = (field: "width" | "height"): number | undefined => {
    const text = form[field].trim();
    if (text === "") return undefined;
    const value = Number(text);
    if (!Number.isSafeInteger(value) || value < 8 || value > LARGEST_SIDE) {
      problems[field] = `Type a number of pixels from 8 to ${LARGEST_SIDE}, or nothing for the model's own size.`;
    }
    return value;
  };
  const axis = (field: "x" | "y"): GridAxis | undefined => {
    const { option, values: text } = form[field];
    if (option === "") return undefined;
    const values = parseValues(text, option, option === "sampler" ? choices.samplers : undefined);
    if (typeof values === "string") problems[field] = values;
    else return { option, values };
    return undefined;
  };
  const seed = number("seed", 0, LARGEST_SEED);
  const steps = number("steps", 1, 1000);
  const guidanceScale = number("guidanceScale", 0, 100);
  const [width, height] = [side("width"), side("height")];
  if (form.model === "") problems.model = "Choose a model.";
  const fitting = fittingAdapters(choices.adapters, form.model);
  const adapters = fitting.flatMap(({ id }) => {
    const scale = form.adapters[id];
    return scale === undefined ? [] : [{ id, scale }];
  });
  const [x, y] = form.hasGrid ? [axis("x"), axis("y")] : [];
  if (x && y && x.option === y.option) problems.y = `Both sides vary the ${x.option}; choose another for one of them.`;
  const usesScale = [x, y].some((each) => each?.option === "adapterScale");
  if (usesScale && adapters.length === 0) problems.adapters = "A grid over the adapter scale needs an adapter.";
  if (form.compare && adapters.length === 0) problems.compare = "Choose an adapter to compare with none.";
  const count = (x?.values.length ?? 1) * (y?.values.length ?? 1) * (form.compare ? 2 : 1);
  if (count > MOST_PICTURES) problems.x = `These are ${count} pictures; at most ${MOST_PICTURES} are drawn at once.`;
  if (Object.keys(problems).length > 0) return { problems, count };
  const request: DrawRequest = {
    ...{ model: form.model, prompt: form.prompt, seed, steps, guidanceScale, adapters, compare: form.compare },
    ...(form.negativePrompt !== "" && { negativePrompt: form.negativePrompt }),
    ...(form.sampler !== "" && { sampler: form.sampler }),
    ...(width !== undefined && { width }),
    ...(height !== undefined && { height }),
    ...((x || y) && { grid: { ...(x && { x }), ...(y && { y }) } }),
  };
  return { request, problems, count };
}

/** A form with a file's settings, and sentences about what could not be taken over. */
export function withSettings(
  form: DrawForm,
  { settings, others }: FoundSettings,
  choices: Choices,
): { form: DrawForm; notes: string[] } {
  const notes: string[] = [];
  const { prompt, negativePrompt = "", seed, steps, guidanceScale, sampler, width, height, adapters = [] } = settings;
  const text = (value: number | undefined, before: string) => (value === undefined ? before : String(value));
  const model =
    settings.model === undefined
      ? undefined
      : choices.models.find(({ id, label }) => modelNames(id, label).some((name) => sameName(name, settings.model!)));
  if (settings.model === undefined) notes.push("It names no model; the one that is chosen stays.");
  else if (!model)
    notes.push(`It was made with the model “${settings.model}”, which is not here; the one that is chosen stays.`);
  const isKnown = sampler !== undefined && choices.samplers.includes(sampler);
  if (sampler !== undefined && !isKnown)
    notes.push(`Its sampler “${sampler}” is not known here; the model's own is chosen.`);
  if (settings.scheduleType !== undefined)
    notes.push(`Its steps were spread in the way “${settings.scheduleType}”, which cannot be chosen here.`);

  const scales: Record<string, number> = {};
  const chosen = model?.id ?? form.model;
  for (const { name, scale } of adapters) {
    const fitting = fittingAdapters(choices.adapters, chosen);
    const found = fitting.filter(({ id, label, run }) =>
      [id, label, run].some((each) => each !== undefined && sameName(each, name)),
    );
    if (found.length === 1) scales[found[0]!.id] = scale;
    else if (found.length > 1)
      notes.push(`${found.length} adapters here could be its “${name}”: choose the one it was.`);
    else notes.push(`Its adapter “${name}” is not here for this model.`);
  }
  if (settings.clipSkip)
    notes.push(`It skips ${settings.clipSkip} layers of the text encoder, which cannot be chosen here.`);
  if (settings.guidanceRescale)
    notes.push(`It rescales the guidance by ${settings.guidanceRescale}, which cannot be chosen here.`);
  if (settings.startImage !== undefined || settings.strength !== undefined) {
    notes.push("It began from an image, which the file does not hold; this draws from noise.");
  }
  if (settings.batch) {
    const { position, size } = settings.batch;
    notes.push(
      `It is number ${position + 1} of ${size} that were made at once; its seed alone gives the first of them.`,
    );
  }
  if (others.length > 0) notes.push(`Not taken over: ${others.join("; ")}.`);
  return {
    notes,
    form: {
      ...form,
      ...{ model: chosen, prompt, negativePrompt, adapters: scales, hasGrid: false },
      sampler: isKnown ? sampler : "",
      seed: text(seed, form.seed),
      isSeedNew: seed === undefined && form.isSeedNew,
      steps: text(steps, form.steps),
      guidanceScale: text(guidanceScale, form.guidanceScale),
      width: text(width, ""),
      height: text(height, ""),
    },
  };
}

/** The embedded model is called by its folder in pictures that the command line draws. */
const modelNames = (id: string, label: string): string[] => [id, label, ...(id === "embedded" ? ["icons"] : [])];

/** The last part of a path, without what says its format; capitals do not matter. */
export function sameName(a: string, b: string): boolean {
  const plain = (name: string) =>
    (name.split(/[/\\]/).filter(Boolean).at(-1) ?? "").replace(/\.(safetensors|ckpt|pt)$/i, "").toLowerCase();
  return a === b || plain(a) === plain(b);
}

/** The request of one picture of a drawing: what its grid had there. */
export function requestOf(request: DrawRequest, image: DrawnImage): DrawRequest {
  const { grid, ...plain } = request;
  let result: DrawRequest = { ...plain, seed: image.seed };
  for (const [axis, place] of [[grid?.x, image.x] as const, [grid?.y, image.y] as const]) {
    const value = axis?.values[place];
    if (!axis || value === undefined) continue;
    if (axis.option === "adapterScale") {
      result = { ...result, adapters: result.adapters.map((each) => ({ ...each, scale: Number(value) })) };
    } else if (axis.option !== "seed") result = { ...result, [axis.option]: value };
  }
  return image.withoutAdapters ? { ...result, adapters: [] } : result;
}

/** The form that asks for a picture that was drawn. */
export function formOf(form: DrawForm, request: DrawRequest, image: DrawnImage): DrawForm {
  const one = requestOf(request, image);
  return {
    ...form,
    ...{ model: one.model, prompt: one.prompt, negativePrompt: one.negativePrompt ?? "", sampler: one.sampler ?? "" },
    ...{
      seed: String(image.seed),
      isSeedNew: false,
      steps: String(one.steps),
      guidanceScale: String(one.guidanceScale),
    },
    ...{ width: String(image.width), height: String(image.height), hasGrid: false, compare: false },
    adapters: Object.fromEntries(one.adapters.map(({ id, scale }) => [id, scale])),
  };
}

/** "seed 1, 25 steps, guidance 7.5, ddim, inks at 0.8". */
export function settingsLine(request: DrawRequest, image: DrawnImage, adapters: readonly AdapterChoice[]): string {
  const one = requestOf(request, image);
  const label = (id: string) => adapters.find((each) => each.id === id)?.label ?? id;
  return [
    `seed ${image.seed}`,
    `${one.steps} steps`,
    `guidance ${one.guidanceScale}`,
    one.sampler ?? "the model's sampler",
    `${image.width}×${image.height}`,
    ...(image.withoutAdapters ? ["without adapters"] : one.adapters.map(({ id, scale }) => `${label(id)} at ${scale}`)),
    `${image.seconds.toFixed(1)} s`,
  ].join(", ");
}
