// The routers by their names in configurations.

import type { FeRAConfig, RouterName } from "../fera-config.js";
import { energyRouter } from "./energy-router.js";
import { fromEnergiesRouter } from "./from-energies-router.js";
import { gatesAreEnergiesRouter } from "./gates-are-energies-router.js";
import { relativeEnergiesRouter } from "./relative-energies-router.js";
import type { Router } from "./router.js";
import { timestepRouter } from "./timestep-router.js";
import { uniformRouter } from "./uniform-router.js";

const ROUTERS: Readonly<Record<RouterName, (config: FeRAConfig) => Router>> = {
  energies: energyRouter,
  "gates-are-energies": gatesAreEnergiesRouter,
  timestep: timestepRouter,
  uniform: uniformRouter,
  "relative-energies": relativeEnergiesRouter,
  "from-energies": fromEnergiesRouter,
};

/** The router that a configuration names. @throws {ConfigError} If it does not fit the other options. */
export const createRouter = (config: FeRAConfig): Router => ROUTERS[config.router](config);
