// No router: expert k is open as far as band k has energy.

import type { FeRAConfig } from "../fera-config.js";
import { type Router, requireExpertPerBand } from "./router.js";

/**
 * w = e, so that E = K.
 *
 * @throws {ConfigError} If there are not as many experts as bands.
 */
export function gatesAreEnergiesRouter(config: FeRAConfig): Router {
  requireExpertPerBand(config);
  return { shapes: new Map(), initialize: () => new Map(), gates: ({ energies }) => energies };
}
