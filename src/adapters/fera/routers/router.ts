// What turns the indicator's energies, or something else in their place, into one gate per expert.

import { ConfigError } from "../../../errors.js";
import type { Value } from "../../../graph/index.js";
import type { Generator } from "../../../tensor/random.js";
import type { Tensor } from "../../../tensor/tensor.js";
import type { FeRAConfig } from "../fera-config.js";

/** What a router may look at. B batch, K bands. */
export interface RouterInputs {
  /** The indicator's `[B, K]`. */
  energies: Value;
  /** float32 `[B]`, 0 … T − 1. */
  timesteps?: Value | undefined;
}

/** A router of K bands and E experts, for one configuration. Has no state. */
export interface Router {
  /** Names and shapes of what is trained; empty where nothing is. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  /** Whether the gates depend on the timesteps, so that they must be given. */
  readonly takesTimesteps?: boolean;
  /** Fresh parameters under those names. */
  initialize(generator: Generator): Map<string, Tensor<"float32">>;
  /** @returns Gates `[B, E]`, 0 or more, each row summing to 1. */
  gates(inputs: RouterInputs, parameters: ReadonlyMap<string, Value>): Value;
  /**
   * Gates of the layers of one block, where blocks have gates of their own; {@link gates} are then those of layers outside of all.
   *
   * @param block - Its number; see `blockOf`.
   */
  blockGates?(inputs: RouterInputs, parameters: ReadonlyMap<string, Value>, block: number): Value;
  /** A loss that some of the parameters are fitted by, whatever the model predicts: its name, and the scalar. */
  readonly ownLoss?: {
    readonly name: string;
    value(inputs: RouterInputs, parameters: ReadonlyMap<string, Value>): Value;
  };
}

/** @throws {ConfigError} If there are not as many experts as bands, which a router needs whose expert k is that of band k. */
export function requireExpertPerBand({ router, numBands, numExperts }: FeRAConfig): void {
  if (numBands === numExperts) return;
  throw new ConfigError(
    `router "${router}": numExperts must equal numBands; got ${numExperts} experts and ${numBands} bands.`,
  );
}
