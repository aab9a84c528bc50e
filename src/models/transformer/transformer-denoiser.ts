// What the transformers that denoise under flow matching share: their inputs with the checks, loading, and prediction. A family
// says what is different in one table.

import {
  type Conditioning,
  conditioningOf,
  type Denoiser,
  type DenoiserInputs,
  type DenoiserShape,
} from "../../diffusion/index.js";
import { ShapeError } from "../../errors.js";
import type { Graph, Value } from "../../graph/index.js";
import type { ModelWeights, Scope } from "../../nn/index.js";
import type { RuntimeOptions } from "../../runtime/index.js";
import type { Generator } from "../../tensor/random.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import { freshWeights, Model } from "../model.js";
import { loadModel, type ModelClass, type PretrainedOptions } from "../pretrained.js";

/** Inputs as graph values: `latents [B, C, H, W]`, `timesteps [B]`, and the family's conditioning. */
export type TransformerValues = Readonly<Record<string, Value>>;

/** One input beside latents and timesteps. */
export interface ConditioningInput {
  /** diffusers' argument name in camelCase. */
  name: string;
  /** Of one row: `["tokens", 4096]`, `[768]`, or `[]` for a number. */
  shape: readonly (number | "tokens")[];
  /** The option that says so, for messages. */
  option: string;
  /** Ones where it is left out. */
  isOptional?: true;
}

/** A class of transformers over latents on a grid that predict the flow, noise minus image, at t = 1000 σ. */
export interface TransformerFamily<Config> {
  /** diffusers' class name. */
  name: string;
  /** @throws {ConfigError} If the configuration asks for what is not supported. */
  parse(config: unknown, source: string): Config;
  latentChannels(config: Config): number;
  /** See `Denoiser.usualTargets`. */
  usualTargets: readonly string[];
  /** Latent pixels along the side of a token: sides of latents are its multiples. */
  patchSize(config: Config): number;
  /** Most tokens along a side, where there is a limit, and the option that says so. */
  largestGrid?(config: Config): { tokens: number; option: string };
  conditioning(config: Config): readonly ConditioningInput[];
  /** What a batch must fulfil beyond shapes. @param fail - Throws, with the class's name. */
  check?(given: Conditioning, config: Config, fail: (problem: string) => never): void;
  /** The model as a function from Values to Values. @returns `[B, C, H, W]`. */
  build(scope: Scope, inputs: TransformerValues, config: Config): Value;
}

/** A denoiser of such a family. */
export abstract class TransformerDenoiser<Config> extends Model<Config> implements Denoiser {
  /** @internal */
  constructor(
    private readonly family: TransformerFamily<Config>,
    config: Config,
    weights: ModelWeights,
    runtime: RuntimeOptions = {},
  ) {
    super(config, weights, runtime);
  }

  get className(): string {
    return this.family.name;
  }

  get latentChannels(): number {
    return this.family.latentChannels(this.config);
  }

  get usualTargets(): readonly string[] {
    return this.family.usualTargets;
  }

  get smallestShape(): DenoiserShape {
    return smallestShape(this.family, this.config);
  }

  shapeOf(inputs: DenoiserInputs): DenoiserShape {
    return shapeOf(inputs, this.family, this.config);
  }

  feedsOf(inputs: DenoiserInputs): Record<string, Tensor> {
    return feedsOf(inputs, this.family.conditioning(this.config));
  }

  declareInputs(graph: Graph, shape: DenoiserShape, without: readonly string[] = []): Record<string, Value> {
    return declareInputs(graph, this.family, this.config, shape, without);
  }

  build(scope: Scope, inputs: Readonly<Record<string, Value>>): Value {
    return this.family.build(scope, inputs, this.config);
  }

  /**
   * Predicts the flow, noise minus image.
   *
   * @returns `[B, C, H, W]`.
   * @throws {ShapeError} If an input does not fit the configuration.
   */
  async predict(inputs: DenoiserInputs): Promise<Tensor<"float32">> {
    const shape = this.shapeOf(inputs);
    const build = (graph: Graph) => {
      graph.output("output", this.build(this.frozenScope(graph), this.declareInputs(graph, shape)));
    };
    return (await this.run(JSON.stringify(shape), build, this.feedsOf(inputs))).output as Tensor<"float32">;
  }
}

type DenoiserClass<Config, Instance> = new (
  config: Config,
  weights: ModelWeights,
  runtime?: RuntimeOptions,
) => Instance;

/** Loads a model of a family; see `loadModel` for what is thrown. */
export async function loadTransformer<Config, Instance>(
  family: TransformerFamily<Config>,
  make: DenoiserClass<Config, Instance>,
  dir: string,
  options: PretrainedOptions,
): Promise<Instance> {
  const { config, weights, runtime } = await loadModel(dir, options, modelClass(family));
  return new make(config, weights, runtime);
}

/** A model of a family with random weights. */
export function freshTransformer<Config, Instance>(
  family: TransformerFamily<Config>,
  make: DenoiserClass<Config, Instance>,
  config: unknown,
  generator: Generator,
  runtime: RuntimeOptions = {},
): Instance {
  const parsed = family.parse(config, family.name);
  const weights = freshWeights((scope) => modelClass(family).build(scope, parsed), generator);
  return new make(parsed, weights, runtime);
}

function modelClass<Config>(family: TransformerFamily<Config>): ModelClass<Config> {
  return {
    name: family.name,
    subfolder: "",
    takesFewBits: true,
    parse: family.parse,
    build(scope, config) {
      family.build(scope, declareInputs(scope.graph, family, config, smallestShape(family, config), []), config);
    },
  };
}

function smallestShape<Config>(family: TransformerFamily<Config>, config: Config): DenoiserShape {
  const side = family.patchSize(config);
  return { batchSize: 1, latentHeight: side, latentWidth: side, tokens: 1 };
}

function declareInputs<Config>(
  graph: Graph,
  family: TransformerFamily<Config>,
  config: Config,
  { batchSize, latentHeight, latentWidth, tokens }: DenoiserShape,
  without: readonly string[],
): Record<string, Value> {
  checkGrid([latentHeight, latentWidth], family, config);
  const shapes = new Map<string, readonly number[]>([
    ["latents", [batchSize, family.latentChannels(config), latentHeight, latentWidth]],
    ["timesteps", [batchSize]],
  ]);
  for (const { name, shape } of family.conditioning(config)) {
    shapes.set(name, [batchSize, ...shape.map((size) => (size === "tokens" ? tokens : size))]);
  }
  const declared = [...shapes].filter(([name]) => !without.includes(name));
  return Object.fromEntries(declared.map(([name, shape]) => [name, graph.input(name, "float32", shape)]));
}

/** Timesteps as float32; a single one, or a single guidance scale, is repeated. */
function feedsOf(inputs: DenoiserInputs, known: readonly ConditioningInput[]): Record<string, Tensor> {
  const { guidance, ...conditioning } = conditioningOf(inputs);
  const batch = inputs.latents.shape[0]!;
  const tokens = conditioning.encoderHiddenStates?.shape[1] ?? 1;
  const leftOut = known.filter(({ name, isOptional }) => isOptional && !conditioning[name]);
  const ones = leftOut.map(({ name, shape }): [string, Tensor] => {
    const sizes = [batch, ...shape.map((size) => (size === "tokens" ? tokens : size))];
    return [name, tensor(new Float32Array(sizes.reduce((a, b) => a * b)).fill(1), sizes)];
  });
  const numbers = ({ data }: Tensor) =>
    tensor(
      Float32Array.from({ length: batch }, (_, i) => Number(data[data.length === 1 ? 0 : i])),
      [batch],
    );
  return {
    latents: inputs.latents,
    timesteps: numbers(inputs.timesteps),
    ...conditioning,
    ...Object.fromEntries(ones),
    ...(guidance && { guidance: numbers(guidance) }),
  };
}

function shapeOf<Config>(inputs: DenoiserInputs, family: TransformerFamily<Config>, config: Config): DenoiserShape {
  const { latents, timesteps } = inputs;
  const refuse = (problem: string): never => fail(family, problem);
  const channels = family.latentChannels(config);
  if (latents.shape.length !== 4 || latents.shape[1] !== channels) {
    refuse(`latents must be [B, ${channels}, H, W]; got [${latents.shape.join(",")}]`);
  }
  const [batchSize, , latentHeight, latentWidth] = latents.shape as [number, number, number, number];
  checkGrid([latentHeight, latentWidth], family, config);
  const checkCount = (name: string, { size, shape }: Tensor) => {
    if (size !== 1 && size !== batchSize) refuse(`${name} must be [${batchSize}]; got [${shape.join(",")}]`);
  };
  checkCount("timesteps", timesteps);
  const given = conditioningOf(inputs);
  const known = family.conditioning(config);
  let tokens: number | undefined;
  for (const { name, shape, option, isOptional } of known) {
    const value = given[name];
    if (!value) {
      if (isOptional) continue;
      refuse(`this checkpoint needs ${name} (${option})`);
      continue;
    }
    if (shape.length === 0) {
      checkCount(name, value);
      continue;
    }
    const expected = [batchSize, ...shape];
    const fits =
      value.shape.length === expected.length &&
      expected.every((size, i) => (size === "tokens" ? (tokens ?? value.shape[i]) : size) === value.shape[i]);
    const form = expected.map((size) => (size === "tokens" ? (tokens ?? "T") : size)).join(", ");
    if (!fits) refuse(`${name} must be [${form}] (${option}); got [${value.shape.join(",")}]`);
    const at = expected.indexOf("tokens");
    if (at >= 0) tokens = value.shape[at]!;
  }
  const unknown = Object.keys(given).find((name) => !known.some((each) => each.name === name));
  if (unknown !== undefined) refuse(`this checkpoint takes no ${unknown}; leave it out`);
  family.check?.(given, config, refuse);
  return { batchSize, latentHeight, latentWidth, tokens: tokens ?? 1 };
}

function checkGrid<Config>(sides: readonly number[], family: TransformerFamily<Config>, config: Config): void {
  const patch = family.patchSize(config);
  const size = sides.join(" × ");
  if (sides.some((side) => side % patch !== 0)) {
    fail(
      family,
      `height and width of latents must be multiples of ${patch} (patches of ${patch}×${patch}); got ${size}`,
    );
  }
  const largest = family.largestGrid?.(config);
  if (largest && sides.some((side) => side / patch > largest.tokens)) {
    const { tokens, option } = largest;
    fail(family, `height and width of latents must be ${tokens * patch} or less (${option}=${tokens}); got ${size}`);
  }
}

function fail({ name }: { name: string }, problem: string): never {
  throw new ShapeError(`${name}: ${problem}.`);
}
