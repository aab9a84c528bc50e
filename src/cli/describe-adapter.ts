// What an adapter holds, in lines.

import {
  adapterFormatOf,
  adapterGates,
  describeTargets,
  type FeRAConfig,
  type LoadedAdapter,
  readFeRAAdapter,
} from "../adapters/index.js";
import { tensor } from "../tensor/tensor.js";
import { counted, formatCount, formatTable } from "./format.js";
import { attendsToText, familyOf } from "./model-family.js";
import { shortened } from "./printable.js";

const LISTED_LAYERS = 16;
const LISTED_EXPERTS = 16;
/** At which a router that follows the timestep is asked. */
const TIMESTEPS = [999, 750, 500, 250, 0];
const MIDDLE = 500;
const FORMATS = { safetensors: "safetensors", torch: "PyTorch state dict", folder: "folder" } as const;

/** Family, layers, rank, experts, bands, parameters, configuration, gates, and the norm of `lora_up` per expert. */
export async function describeAdapter(path: string, { all }: { all: boolean }): Promise<string[]> {
  const adapter = await readFeRAAdapter(path);
  const { layers, config, state, hasConfig } = adapter;
  const { rank, numExperts, numBands } = config;
  const parameters = [...state.values()].reduce((sum, { size }) => sum + size, 0);
  const { alpha, dropout, router, routerTau, feclWeight, bands, sigma, matching, targetModules } = config;
  const sigmaText = sigma.rule === "latent" ? `latent / ${sigma.divisor}` : sigma.rule;
  const shares = expertNorms(adapter);
  const totals = Array.from({ length: numExperts }, (_, expert) =>
    Math.sqrt(shares.reduce((sum, row) => sum + row[expert]! ** 2, 0)),
  );
  const shown = all ? layers.length : LISTED_LAYERS;
  const table = formatTable([
    ["layer", "in", "out", ...totals.map((_, expert) => `‖up‖ ${expert + 1}`)],
    ...layers
      .slice(0, shown)
      .map(({ path, inFeatures, outFeatures }, layer) => [
        shortened(path),
        String(inFeatures),
        String(outFeatures),
        ...shares[layer]!.map(formatNorm),
      ]),
    ["all layers", "", "", ...totals.map(formatNorm)],
  ]);
  if (layers.length > shown) table.splice(-1, 0, `… ${layers.length - shown} more (--all lists them)`);
  const family = familyOf(layers.find((layer) => attendsToText(layer.path))?.inFeatures);
  return [
    `${path}: FeRA adapter, ${FORMATS[adapterFormatOf(path)]}`,
    `  rank ${rank}, ${counted(numExperts, "expert")}${config.sharedDown ? " with a shared lora_down" : ""}, ${counted(numBands, "band")}`,
    `  ${counted(layers.length, "layer")}, ${formatCount(parameters)} parameters`,
    ...(family ? [`  family ${family}`] : []),
    hasConfig ? "  configuration" : "  no configuration in the file; assumed",
    `    alpha ${alpha}, dropout ${dropout}, router ${router}, temperature ${routerTau}, consistency weight ${feclWeight}`,
    `    bands ${bands}, blur ${sigmaText}, matching ${matching}, targets ${shortened(describeTargets(targetModules))}`,
    ...(await describeGates(adapter)).map((line) => `  ${line}`),
    ...table.map((line) => `  ${line}`),
  ];
}

/**
 * The router's answer: to energy in one band, and spread evenly (the corners and the middle); or to the timestep, where it
 * follows that.
 */
async function describeGates(adapter: LoadedAdapter<FeRAConfig>): Promise<string[]> {
  const { numBands, numExperts, router } = adapter.config;
  if (router === "uniform") return [`gates 1/${numExperts} each, whatever the image and the timestep`];
  const isTimed = router === "timestep";
  const rows = isTimed ? TIMESTEPS.length : numBands + 1;
  const energies = new Float32Array(rows * numBands).fill(1 / numBands);
  if (!isTimed) {
    for (let band = 0; band < numBands; band++) {
      for (let i = 0; i < numBands; i++) energies[band * numBands + i] = i === band ? 1 : 0;
    }
  }
  const isRelative = router === "relative-energies";
  const timesteps = isTimed ? Float32Array.from(TIMESTEPS) : new Float32Array(rows).fill(MIDDLE);
  const { data } = await adapterGates(adapter, {
    energies: tensor(energies, [rows, numBands]),
    ...((isTimed || isRelative) && { timesteps: tensor(timesteps, [rows]) }),
  });
  const labelOf = (row: number): string => {
    if (isTimed) return `timestep ${TIMESTEPS[row]}`;
    return row < numBands ? `all energy in band ${row + 1}` : "energy spread evenly";
  };
  const listed = Math.min(numExperts, LISTED_EXPERTS);
  const table = Array.from({ length: rows }, (_, row) => [
    labelOf(row),
    ...Array.from({ length: listed }, (_, expert) => data[row * numExperts + expert]!.toFixed(3)),
  ]);
  const at = isRelative ? `, at timestep ${MIDDLE}` : "";
  const title = isTimed ? "gates (from noise to image)" : `gates (bands from low to high${at})`;
  const head = [title, ...Array.from({ length: listed }, (_, expert) => `${expert + 1}`)];
  const more = numExperts > listed ? [`… ${numExperts - listed} more experts`] : [];
  return [...formatTable([head, ...table]), ...more];
}

const formatNorm = (norm: number): string => (norm === 0 ? "0" : norm.toPrecision(3));

/** ‖up‖ (Frobenius) per layer and expert. */
function expertNorms({ config, layers, state }: LoadedAdapter<FeRAConfig>): number[][] {
  return layers.map(({ path }) =>
    Array.from({ length: config.numExperts }, (_, expert) => {
      const up = state.get(`base_model.${path}.experts.${expert}.lora_up.weight`)!;
      return Math.sqrt(up.data.reduce((sum, value) => sum + value * value, 0));
    }),
  );
}
