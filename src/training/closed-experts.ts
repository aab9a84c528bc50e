// Experts that no latent of a training opens: where gates are the energies themselves, no router can learn to open them.

import { baseSigma, type FeRAModel } from "../adapters/index.js";
import type { Objective } from "../diffusion/index.js";
import type { EncodedRows } from "./encoded-dataset.js";
import { gatesAlong } from "./gates-along.js";
import { closedGates, expertsInWords } from "./report/closed-gates.js";

/** A first blur of half a latent pixel keeps every band open, which the reference's rule has at 64×64 latents. */
const ENOUGH_SIGMA = 0.5;

/** What is to be told of experts that stay closed; undefined where there are none, or a router could open them. */
export async function closedExpertsMessage(
  fera: FeRAModel,
  rows: EncodedRows,
  objective: Objective,
): Promise<string | undefined> {
  const { router, numExperts, sigma } = fera.config;
  if (router !== "gates-are-energies" || numExperts === 1) return undefined;
  const closed = closedGates(await gatesAlong(fera, rows, objective));
  if (closed.length === 0) return undefined;
  const { latentHeight, latentWidth } = rows.latentSize(0);
  const blur = baseSigma(sigma, latentHeight, latentWidth);
  const divisor = Math.min(latentHeight, latentWidth) / ENOUGH_SIGMA;
  const advice =
    blur < ENOUGH_SIGMA
      ? `The finest blur is ${Number(blur.toPrecision(2))} latent pixels, too little for latents of ${latentWidth}×${latentHeight}; ` +
        `sigmaRule "latent" with sigmaDivisor ${divisor} (--sigma-rule latent --sigma-divisor ${divisor}) makes it half a pixel.`
      : "Fewer experts would do.";
  const [stays, its] =
    closed.length === 1 ? ["stays closed and is", "its band has"] : ["stay closed and are", "their bands have"];
  return (
    `${expertsInWords(closed, numExperts)} ${stays} hardly trained: gates are the energies (router "gates-are-energies"), and ${its} less ` +
    `than a hundredth of them. ${advice}`
  );
}
