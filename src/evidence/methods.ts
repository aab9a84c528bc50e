// What is compared: each method with its configuration at one budget of trained parameters, and how it is trained.

import {
  type AdapterConfig,
  DoRAConfig,
  FeRAConfig,
  type FeRAOptions,
  LoKrConfig,
  LoRAConfig,
  TLoRAConfig,
} from "../adapters/index.js";
import { ConfigError, quoted } from "../errors.js";
import { type Budget, fitted, largestRank, nearest, TOTAL_RANK } from "./budget.js";
import type { RunSpec } from "./records.js";

/**
 * alpha / rank of a LoRA, and of FeRA's experts taken together: gates sum to 1, so that experts of rank r with gates of
 * 1/E act at (alpha / r) / E, as a LoRA of rank E·r with the same alpha.
 */
export const SCALE = 2;

/** One way to adapt the base, or none. */
export interface Method {
  name: string;
  title: string;
  /** `none` trains nothing, `full` all weights. */
  kind: "none" | "full" | "adapter";
  /** Whether its parameters are meant to be the budget's. */
  isBudgeted: boolean;
  /** The method whose tuned learning rate it takes: itself for those that are tuned. */
  tunedAs: string;
  /** On that rate. */
  rateFactor?: number;
  /** A further factor on the rate of FeRA's router. */
  routerLr?: number;
  /** Of an adapter. */
  config?: (budget: Budget) => AdapterConfig;
}

/** FeRA with the bands that tell a small latent's noise from its drawing, and without the consistency loss. */
const PLAIN: FeRAOptions = { bands: "complete", sigma: { rule: "latent", divisor: 32 }, feclWeight: 0 };

/** A FeRA method: ranks are such that all experts together have the budget. */
export function feraMethod(
  name: string,
  title: string,
  options: FeRAOptions & { scale?: number } = {},
  rest: Partial<Method> = {},
): Method {
  const { scale = SCALE, ...own } = options;
  const { numExperts = 3, sharedDown = false } = own;
  return {
    ...{ name, title, kind: "adapter", isBudgeted: true, tunedAs: "fera-plain", ...rest },
    config: (budget) =>
      nearest(budget, (rank, excludeModules) => {
        // A shared A leaves each expert the rank of the layer; its gate is 1/E as the others' are.
        const alpha = scale * rank * numExperts;
        const layers = { targetModules: budget.targetModules, excludeModules };
        return new FeRAConfig({ ...PLAIN, ...own, ...layers, sharedDown, rank, alpha });
      }),
  };
}

const lora = (name: string, title: string, config: NonNullable<Method["config"]>, isBudgeted = true): Method => ({
  ...{ name, title, kind: "adapter", isBudgeted, tunedAs: name, config },
});

const tuned = (method: Method): Method => ({ ...method, tunedAs: method.name });

/** The methods of the main table; each one's learning rate is tuned. The first is what the others are compared with. */
export const METHODS: readonly Method[] = [
  lora("lora", `LoRA of rank ${TOTAL_RANK}`, (budget) =>
    fitted(budget, SCALE, (rank) => new LoRAConfig({ ...rank, targetModules: budget.targetModules })),
  ),
  tuned(
    feraMethod("fera", "FeRA as published", {
      ...{ bands: "reference", sigma: { rule: "reference" }, feclWeight: 0.1 },
    }),
  ),
  tuned(feraMethod("fera-plain", "FeRA, complete bands, no consistency loss")),
  tuned(feraMethod("fera-energies", "FeRA, gates are the energies", { router: "gates-are-energies" })),
  tuned(feraMethod("fera-timestep", "FeRA, gates from the timestep", { router: "timestep" })),
  tuned(feraMethod("fera-uniform", "FeRA, equal gates", { router: "uniform" })),
  tuned(feraMethod("fera-shared", "FeRA, one A for all experts", { sharedDown: true })),
  lora(
    "lora-expert",
    `LoRA of rank ${TOTAL_RANK / 3}, one expert's`,
    ({ targetModules, layers }) => {
      const rank = Math.max(1, Math.floor(Math.min(TOTAL_RANK, largestRank(layers)) / 3));
      return new LoRAConfig({ rank, alpha: SCALE * rank, targetModules });
    },
    false,
  ),
  lora("rslora", `rsLoRA of rank ${TOTAL_RANK}`, (budget) => {
    const { rank, rankPattern } = fitted(
      budget,
      SCALE,
      (rank) => new LoRAConfig({ ...rank, targetModules: budget.targetModules }),
    );
    // alpha / √rank, alpha the rank, as PEFT takes it.
    return new LoRAConfig({ rank, rankPattern, alpha: rank, useRslora: true, targetModules: budget.targetModules });
  }),
  lora("dora", "DoRA", (budget) =>
    fitted(budget, SCALE, (rank) => new DoRAConfig({ ...rank, targetModules: budget.targetModules })),
  ),
  // Larger factors cannot have as many parameters: two Kronecker factors are small by nature.
  lora(
    "lokr",
    "LoKr, factor 2",
    (budget) =>
      fitted(budget, SCALE, (rank) => new LoKrConfig({ ...rank, factor: 2, targetModules: budget.targetModules })),
    false,
  ),
  lora("t-lora", "T-LoRA", (budget) =>
    fitted(budget, SCALE, (rank) => {
      const minRank = Math.max(1, Math.floor(rank.rank / 2));
      return new TLoRAConfig({ ...rank, minRank, targetModules: budget.targetModules });
    }),
  ),
  { name: "full", title: "all weights", kind: "full", isBudgeted: false, tunedAs: "full" },
  { name: "none", title: "no training", kind: "none", isBudgeted: false, tunedAs: "none" },
];

/** What the others are compared with. */
export const BASELINE = "lora";

/** What the variants below exchange one thing of: complete bands, a blur of min(H, W) / 32, no consistency loss, three of both. */
export const ABLATED = "fera-plain";

const ablation = (name: string, title: string, options: FeRAOptions): Method => feraMethod(name, title, options);

/** Variants of {@link ABLATED} that differ in one thing, by the part of the study that has them. */
export const ABLATIONS: Readonly<Record<"consistency" | "bands" | "sigma" | "numbers", readonly Method[]>> = {
  consistency: [
    ...[0.1, 1].map((feclWeight) =>
      ablation(`consistency-${feclWeight}`, `consistency loss ${feclWeight}`, { feclWeight }),
    ),
    ...[0, 0.1, 1].map((feclWeight) =>
      ablation(`one-expert-consistency-${feclWeight}`, `one expert, consistency loss ${feclWeight}`, {
        ...{ feclWeight, numExperts: 1 },
      }),
    ),
  ],
  bands: [ablation("bands-reference", "reference bands", { bands: "reference" })],
  sigma: [
    ablation("sigma-reference", "blur of min(H, W) / 128", { sigma: { rule: "reference" } }),
    ...[64, 16, 8, 4].map((divisor) =>
      ablation(`sigma-${divisor}`, `blur of min(H, W) / ${divisor}`, { sigma: { rule: "latent", divisor } }),
    ),
  ],
  numbers: [
    ...[2, 4].map((numBands) => ablation(`bands-${numBands}`, `${numBands} bands`, { numBands })),
    ...[2, 4].map((numExperts) => ablation(`experts-${numExperts}`, `${numExperts} experts`, { numExperts })),
  ],
};

/** @throws {ConfigError} If there is no such method among these. */
export function methodNamed(name: string, methods: readonly Method[]): Method {
  const found = methods.find((method) => method.name === name);
  if (found) return found;
  throw new ConfigError(
    `evidence: there is no method ${quoted(name)}; there are ${methods.map((method) => method.name).join(", ")}.`,
  );
}

const adapters = new WeakMap<Budget, Map<string, RunSpec["adapter"]>>();

/** A method's adapter under a budget: made once, as a plan is asked for after every run. */
export function adapterOf({ name, config: make }: Method, budget: Budget): RunSpec["adapter"] {
  const known = adapters.get(budget) ?? new Map<string, RunSpec["adapter"]>();
  adapters.set(budget, known);
  if (!known.has(name)) {
    const config = make?.(budget);
    known.set(name, config && { type: config.adapterType, config: config.toJSON() });
  }
  return known.get(name);
}
