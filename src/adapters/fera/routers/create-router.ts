// The routers by their names in configurations.

import type { FeRAConfig, RouterName } from "../fera-config.js";
import { blockRouter } from "./block-router.js";
import { energyRouter } from "./energy-router.js";
import { fromEnergiesRouter } from "./from-energies-router.js";
import { gatesAreEnergiesRouter } from "./gates-are-energies-router.js";
import { relativeEnergiesRouter } from "./relative-energies-router.js";
import type { Router } from "./router.js";
import { sparseRouter } from "./sparse-router.js";
import { timestepRouter } from "./timestep-router.js";
import { uniformRouter } from "./uniform-router.js";

const ROUTERS: Readonly<Record<RouterName, (config: FeRAConfig) => Router>> = {
  energies: energyRouter,
  "gates-are-energies": gatesAreEnergiesRouter,
  timestep: timestepRouter,
  uniform: uniformRouter,
  "relative-energies": relativeEnergiesRouter,
  "from-energies": fromEnergiesRouter,
  "energies-by-block": blockRouter,
};

/** The router that a configuration names. @throws {ConfigError} If it does not fit the other options. */
export function createRouter(config: FeRAConfig): Router {
  const router = ROUTERS[config.router](config);
  return config.topExperts === 0 ? router : sparseRouter(router, config.topExperts);
}
