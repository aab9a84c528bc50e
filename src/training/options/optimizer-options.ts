// How long is trained, and how gradients become steps.

import { z } from "zod";
import { LEARNING_RATE_SCHEDULES, stepsOf } from "../learning-rate.js";
import { FINE_TUNING_RATES, OPTIMIZER_NAMES } from "../optimizers/index.js";
import { choice, flag, integer, number, OptionSpec, type OptionValues, repeated } from "./option.js";

/** A number of steps, or a share of all. */
const stepsOrShare = (help: string) =>
  new OptionSpec<number | undefined>(
    z
      .number()
      .min(0)
      .refine((value) => value < 1 || Number.isSafeInteger(value)),
    "a number of steps, or a share of all steps below 1",
    `${help}: a number of them, or a share of all below 1`,
    { placeholder: "N", parse: (text) => (text.trim() === "" ? text : Number(text)) },
  );

const isShare = (value: unknown): boolean => typeof value === "number" && value > 0 && value < 1;

const others = Object.entries(FINE_TUNING_RATES)
  .filter(([name, rate]) => !name.startsWith("adamw") && rate !== undefined)
  .map(([name, rate]) => `${rate} with ${name}`);

/** Part of `TRAINING_OPTIONS`. */
export const OPTIMIZER_OPTIONS = {
  steps: integer("optimizer steps", { min: 1 })
    .withDefault(1000)
    .keptWhere(
      ({ schedule, warmup }) => schedule !== "constant" || isShare(warmup),
      "the learning rate of every step depends on it",
    ),
  optimizer: choice("what turns gradients into steps", OPTIMIZER_NAMES).withDefault("adamw"),
  learningRate: number(
    `learning rate of the optimizer; by default 1e-4, ${others.join(", ")}, and with adafactor steps relative to the weights`,
    { min: 0 },
  ),
  schedule: choice("learning-rate schedule", LEARNING_RATE_SCHEDULES).withDefault("constant"),
  warmup: stepsOrShare("steps over which the learning rate rises from 0").withDefault(0),
  decaySteps: stepsOrShare("steps at the end over which the schedule falls, by default all"),
  restarts: integer("how often cosine-restarts falls", { min: 1 }).withDefault(1),
  power: number("exponent of polynomial", { above: 0 }).withDefault(1),
  weightDecay: number("decoupled weight decay", { min: 0 }).withDefault(0.01),
  maxGradientNorm: number("largest norm of all gradients; 0 for no clipping", { min: 0 }).withDefault(1),
  blockLr: repeated(
    "a factor on the learning rate of the trained tensors whose names fit: block-name=0.5, up_blocks.*=2, 0 to freeze",
    "PATTERN=FACTOR",
  ),
  routerLr: number("a factor on the learning rate of FeRA's router; 0 freezes it", { min: 0 }).withDefault(1),
  ema: number("decay of an average of the adapters, which is then what is saved; 0 for none", {
    min: 0,
    below: 1,
  }).withDefault(0),
  emaWarmup: flag("let the average's decay rise as 1 - (1 + step)^(-2/3)"),
};

type OptimizerOptionValues = OptionValues<typeof OPTIMIZER_OPTIONS>;

/**
 * What is wrong with these options together.
 *
 * @param nameOf - How an option is called where it was given.
 */
export function optimizerProblem(
  values: OptimizerOptionValues,
  nameOf: (option: string) => string,
): string | undefined {
  const { schedule, optimizer, steps, warmup, decaySteps, restarts, power, ema, emaWarmup } = values;
  if (restarts !== 1 && schedule !== "cosine-restarts")
    return `${nameOf("restarts")} is for the schedule cosine-restarts.`;
  if (power !== 1 && schedule !== "polynomial") return `${nameOf("power")} is for the schedule polynomial.`;
  if (decaySteps !== undefined && schedule === "constant") {
    return `${nameOf("decaySteps")} needs a ${nameOf("schedule")} that falls, such as linear.`;
  }
  const warming = stepsOf("warmup", warmup, steps);
  if (warming > steps) return `${nameOf("warmup")} must not exceed ${nameOf("steps")}; got ${warming} and ${steps}.`;
  const falling = decaySteps === undefined ? 0 : stepsOf("decaySteps", decaySteps, steps);
  if (warming + falling > steps) {
    return (
      `${nameOf("warmup")} and ${nameOf("decaySteps")} together must not exceed ${nameOf("steps")}; ` +
      `got ${warming}, ${falling} and ${steps}.`
    );
  }
  if (emaWarmup && ema === 0) return `${nameOf("emaWarmup")} needs ${nameOf("ema")}.`;
  if (ema !== 0 && optimizer === "schedule-free") {
    return `${nameOf("ema")} and the optimizer schedule-free exclude each other: what it saves is an average already.`;
  }
  return undefined;
}
