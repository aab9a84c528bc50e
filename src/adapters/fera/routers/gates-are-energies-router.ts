// No router: expert k is open as far as band k has energy.

import { ConfigError } from "../../../errors.js";
import type { FeRAConfig } from "../fera-config.js";
import type { Router } from "./router.js";

/**
 * w = e, so that E = K.
 *
 * @throws {ConfigError} If there are not as many experts as bands.
 */
export function gatesAreEnergiesRouter({ numBands, numExperts }: FeRAConfig): Router {
  if (numBands !== numExperts) {
    throw new ConfigError(
      `router "gates-are-energies": numExperts must equal numBands; got ${numExperts} experts and ${numBands} bands.`,
    );
  }
  return { shapes: new Map(), initialize: () => new Map(), gates: ({ energies }) => energies };
}
