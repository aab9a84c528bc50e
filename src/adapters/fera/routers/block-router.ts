// FeRA's network with gates of each block's own: where in a UNet a layer lies may matter as much as what the latent is.

import type { Value } from "../../../graph/index.js";
import * as ops from "../../../graph/index.js";
import { zeros } from "../../../tensor/tensor.js";
import type { FeRAConfig } from "../fera-config.js";
import type { Router, RouterInputs } from "./router.js";
import { hiddenUnits, initialNetwork, networkShapes, outputLogits, softmaxNetwork } from "./router-network.js";

/** The blocks of a UNet of four resolutions, by the beginnings of their layers' paths; others have fewer of them. */
export const UNET_BLOCKS = [
  ...[0, 1, 2, 3].map((level) => `down_blocks.${level}.`),
  "mid_block.",
  ...[0, 1, 2, 3].map((level) => `up_blocks.${level}.`),
] as const;

/** The number of a layer's block; undefined for layers outside of all. */
export function blockOf(path: string): number | undefined {
  const block = UNET_BLOCKS.findIndex((beginning) => path.startsWith(beginning));
  return block === -1 ? undefined : block;
}

/**
 * w_d = softmax((W2 h + b2 + V_d h + c_d) / tau), h = relu(W1 e + b1), for the layers of block d; without V and c for layers outside of
 * all blocks. V and c (`block.weight [9·E, 64]`, `block.bias [9·E]`) begin at 0, where all blocks have the published gates.
 */
export function blockRouter({ numBands, numExperts, routerTau }: FeRAConfig): Router {
  const all = UNET_BLOCKS.length * numExperts;
  const hidden = networkShapes(numBands, numExperts).get("net.2.weight")![1]!;
  const own = new Map<string, readonly number[]>([
    ["block.weight", [all, hidden]],
    ["block.bias", [all]],
  ]);
  return {
    shapes: new Map([...networkShapes(numBands, numExperts), ...own]),
    initialize(generator) {
      const network = initialNetwork(numBands, numExperts, generator);
      for (const [name, shape] of own) network.set(name, zeros(shape));
      return network;
    },
    gates: ({ energies }, parameters) => softmaxNetwork(energies, parameters, routerTau),
    blockGates({ energies }: RouterInputs, parameters, block) {
      const units = hiddenUnits(energies, parameters);
      const begin = block * numExperts;
      const rows = (name: string) => ops.slice(parameters.get(name)!, 0, begin, begin + numExperts);
      const added = ops.linear(units, rows("block.weight"), rows("block.bias"));
      return ops.softmax(ops.div(ops.add(outputLogits(units, parameters), added), routerTau));
    },
  };
}

/**
 * The gates that a router gives layers.
 *
 * @param paths - Of the adapted layers.
 * @returns Those of each layer, and their mean over the blocks that the layers lie in; both `[B, E]`.
 */
export function layerGates(
  router: Router,
  inputs: RouterInputs,
  parameters: ReadonlyMap<string, Value>,
  paths: readonly string[],
): { mean: Value; at: (path: string) => Value } {
  const { blockGates } = router;
  if (!blockGates || paths.length === 0) {
    const mean = router.gates(inputs, parameters);
    return { mean, at: () => mean };
  }
  const byBlock = new Map(
    [...new Set(paths.map(blockOf))].map((block) => [
      block,
      block === undefined ? router.gates(inputs, parameters) : blockGates(inputs, parameters, block),
    ]),
  );
  const all = [...byBlock.values()];
  const sum = all.reduce((total, gates) => ops.add(total, gates));
  return { mean: ops.div(sum, all.length), at: (path) => byBlock.get(blockOf(path))! };
}
