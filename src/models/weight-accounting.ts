// Compares a file's tensors with those that a model is built of: what is missing and what is not used are both refused, by
// name. A tensor that is left out unnoticed gives a model that looks right and is not.

import { FormatError } from "../errors.js";
import { Graph, sameShape, type Value } from "../graph/index.js";
import { ModelWeights, type ParameterSource, Scope } from "../nn/index.js";
import { quote } from "../storage/json.js";
import { harmlessIn } from "./harmless-weights.js";

const NAMED = 3;
/** A configuration that asks for so many tensors that are not there is not looked at further. */
const MISSING_LIMIT = 1000;

/**
 * Accounts for every tensor.
 *
 * @param weights - As loaded, under the names that the model asks for.
 * @param integers - Names of tensors in the file that are no floating-point numbers.
 * @param className - The model's class, for messages and for what is harmless beside it.
 * @param build - Builds all of the model; nothing is computed.
 * @returns The weights that are used.
 * @throws {FormatError} If one is missing or has another shape, or if one is there that is neither used nor harmless.
 */
export function accountForWeights(
  weights: ModelWeights,
  integers: readonly string[],
  className: string,
  build: (scope: Scope) => void,
): ModelWeights {
  const asked = new AskedWeights(weights);
  try {
    build(new Scope(new Graph(), asked));
  } catch (error) {
    if (!(error instanceof TooManyProblems)) throw error;
  }
  refuse(weights.source, asked.problems, asked.problems.length >= MISSING_LIMIT);
  const isHarmless = harmlessIn(className);
  const unused = [...weights.weights.keys(), ...integers].filter((name) => !asked.values.has(name));
  const strange = unused.filter((name) => !isHarmless(name));
  if (strange.length > 0) {
    const shown = strange.slice(0, NAMED).map(quote).join(", ");
    const more = strange.length > NAMED ? ` and ${strange.length - NAMED} more` : "";
    throw new FormatError(
      weights.source,
      `has ${strange.length === 1 ? "a weight" : `${strange.length} weights`} that a ${className} of this configuration ` +
        `does not use: ${shown}${more}. It was made for another model: without them the results would be wrong. ` +
        "Check config.json, and that the weights belong to it.",
    );
  }
  if (unused.length === 0) return weights;
  return new ModelWeights(new Map([...weights.weights].filter(([name]) => asked.values.has(name))), weights.source);
}

function refuse(source: string, problems: readonly string[], isCut: boolean): void {
  if (problems.length === 0) return;
  const more = problems.length - 1;
  const rest =
    more === 0 ? "" : ` (and ${isCut ? "at least " : ""}${more} more such ${more === 1 ? "problem" : "problems"})`;
  throw new FormatError(source, `${problems[0]}${rest}.`);
}

class TooManyProblems extends Error {}

/** Notes what a model asks for, and what of it does not fit. */
class AskedWeights implements ParameterSource {
  readonly values = new Map<string, Value>();
  readonly problems: string[] = [];

  constructor(private readonly given: ModelWeights) {}

  parameter(graph: Graph, path: string, shape: readonly number[]): Value {
    const known = this.values.get(path);
    if (known) return known;
    const weight = this.given.weights.get(path);
    if (!weight) {
      this.#add(`the weight "${path}" is missing; the configuration needs it as [${shape.join(",")}]`);
    } else if (!sameShape(weight.shape, shape)) {
      this.#add(`the weight "${path}" is [${weight.shape.join(",")}]; the configuration needs [${shape.join(",")}]`);
    }
    const value = graph.input(path, "float32", shape);
    this.values.set(path, value);
    return value;
  }

  #add(problem: string): void {
    this.problems.push(problem);
    if (this.problems.length >= MISSING_LIMIT) throw new TooManyProblems();
  }
}
