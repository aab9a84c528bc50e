// Adapters on different layers of one model, trained as one: a denoiser's, and those of its text encoders.

import type { Graph, Value } from "../graph/index.js";
import { Tensor } from "../tensor/tensor.js";
import type { AdapterConfig, AttachedAdapter, AttachInputs, StepAdapter } from "./adapter.js";

/** One of the adapters. */
export interface JointPart {
  adapter: StepAdapter;
  /** Whether its layers see latents and timesteps; a text encoder's do not. */
  seesLatents: boolean;
}

/** Several adapters as one. No layer, and no name of a tensor, may belong to two of them. */
export class JointAdapter implements StepAdapter {
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  readonly lossNames: readonly string[];
  readonly hasWholeBatchLoss: boolean;

  constructor(
    /** What stands for all of them. */
    readonly config: AdapterConfig,
    private readonly parts: readonly JointPart[],
  ) {
    this.shapes = new Map(parts.flatMap(({ adapter }) => [...adapter.shapes]));
    this.lossNames = parts.flatMap(({ adapter }) => adapter.lossNames);
    this.hasWholeBatchLoss = parts.some(({ adapter }) => adapter.hasWholeBatchLoss);
  }

  attach(graph: Graph, parameters: ReadonlyMap<string, Value>, inputs: AttachInputs): AttachedAdapter {
    const { latents: _latents, timesteps: _timesteps, ...ofText } = inputs;
    const attached = this.parts.map(({ adapter, seesLatents }) => {
      // Some kinds know their layers by the parameters that there are.
      const own = new Map([...adapter.shapes.keys()].map((name) => [name, parameters.get(name)!]));
      return adapter.attach(graph, own, seesLatents ? inputs : ofText);
    });
    const reports = Object.assign({}, ...attached.map((each) => each.reports)) as AttachedAdapter["reports"];
    return {
      layers: { apply: (layer, x, y) => attached.reduce((sum, { layers }) => layers.apply(layer, x, sum), y) },
      // Complete once the model is built, as its parts are.
      get masks() {
        return new Map(attached.flatMap(({ masks }) => [...masks]));
      },
      inputs: Object.assign({}, ...attached.map((each) => each.inputs)),
      reports,
      lossTerms: (prediction) => Object.assign({}, ...attached.map((each) => each.lossTerms?.(prediction))),
    };
  }

  toStateDict(values: ReadonlyMap<string, Float32Array>): Map<string, Tensor<"float32">> {
    return new Map(this.parts.flatMap(({ adapter }) => [...adapter.toStateDict(values)]));
  }
}

/** Tensors that are trained by themselves, on no layer: vectors of new tokens. The model is built with them. */
export class LooseTensors implements StepAdapter {
  readonly lossNames = [];

  constructor(
    readonly config: AdapterConfig,
    readonly shapes: ReadonlyMap<string, readonly number[]>,
  ) {}

  attach(_graph: Graph, parameters: ReadonlyMap<string, Value>): AttachedAdapter {
    const inputs = Object.fromEntries([...this.shapes.keys()].map((name) => [name, parameters.get(name)!]));
    return { layers: { apply: (_layer, _x, y) => y }, masks: new Map(), inputs, reports: {} };
  }

  toStateDict(values: ReadonlyMap<string, Float32Array>): Map<string, Tensor<"float32">> {
    return new Map(
      [...this.shapes].map(([name, shape]) => [name, new Tensor("float32", shape, values.get(name)!.slice())]),
    );
  }
}
