// Every name in a training's output folder. Pure; the paths are in output-folder.ts.

/**
 * - `run.json`: the options that the run was started with.
 * - `dataset.json`: the images and captions that it is trained on, by their hashes.
 * - `metrics.jsonl`: a line per step. `loss.png`, `validation-loss.png`, `learning-rate.png`, `gates.png`: its plots.
 * - `report.html`: all of it in one page.
 * - `learned_embeds.safetensors`: vectors of a new token, where one is trained.
 * - `checkpoints/`: the newest states, and the best. `validation/`: pictures along the way. `tensorboard/`: event files.
 * - `.training.lock`: held while a training runs.
 */
export const OUTPUT_NAMES = {
  run: "run.json",
  dataset: "dataset.json",
  metrics: "metrics.jsonl",
  lossPlot: "loss.png",
  validationPlot: "validation-loss.png",
  learningRatePlot: "learning-rate.png",
  gatesPlot: "gates.png",
  report: "report.html",
  embedding: "learned_embeds.safetensors",
  eventLog: "tensorboard",
  checkpoints: "checkpoints",
  validation: "validation",
  lock: ".training.lock",
} as const;

/** Whether a name in the folder is the training's own; the adapter can have none of them. */
export const isOwnName = (name: string): boolean => Object.values<string>(OUTPUT_NAMES).includes(name.toLowerCase());

/** "step-000012": in the order of names is in the order of steps. */
export const stepName = (step: number): string => `step-${String(step).padStart(6, "0")}`;

/** Whether a name in `validation/` is a picture that a training made. */
export const isValidationPicture = (name: string): boolean => /^(step-\d+|prompt-[0-9a-f]{8})\.png$/.test(name);

/** Whether a name in `validation/` is the folder of a prompt's pictures. */
export const isPromptFolder = (name: string): boolean => /^prompt-[0-9a-f]{8}$/.test(name);

/** In the folder of a prompt: what is drawn there. */
export const PROMPT_FILE = "prompt.json";

/** Beside a picture of a prompt: how the adapter was mixed along its sampling. */
export const routeFile = (picture: string): string => picture.replace(/\.png$/, ".json");

/** Whether a name in the folder of a prompt is of a training: a picture, or how the adapter was mixed along its sampling. */
export const isPromptPicture = (name: string): boolean =>
  name === PROMPT_FILE || /^((step-\d+|without)(-\d+)?\.png|step-\d+(-\d+)?\.json)$/.test(name);
