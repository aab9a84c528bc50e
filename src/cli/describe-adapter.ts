// What an adapter holds, in lines.

import {
  adapterFormatOf,
  type FeRAConfig,
  type LoadedAdapter,
  readFeRAAdapter,
  SoftFrequencyRouter,
} from "../adapters/index.js";
import { tensor } from "../tensor/tensor.js";
import { counted, formatCount, formatTable } from "./format.js";
import { attendsToText, familyOf } from "./model-family.js";
import { shortened } from "./printable.js";

const LISTED_LAYERS = 16;
const LISTED_EXPERTS = 16;
const FORMATS = { safetensors: "safetensors", torch: "PyTorch state dict", folder: "folder" } as const;

/** Family, layers, rank, experts, bands, parameters, configuration, gates, and the norm of `lora_up` per expert. */
export async function describeAdapter(path: string, { all }: { all: boolean }): Promise<string[]> {
  const adapter = await readFeRAAdapter(path);
  const { layers, config, state, hasConfig } = adapter;
  const { rank, numExperts, numBands } = config;
  const parameters = [...state.values()].reduce((sum, { size }) => sum + size, 0);
  const { alpha, dropout, routerTau, feclWeight, bands, sigma, matching, targetModules } = config;
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
    `  rank ${rank}, ${counted(numExperts, "expert")}, ${counted(numBands, "band")}`,
    `  ${counted(layers.length, "layer")}, ${formatCount(parameters)} parameters`,
    ...(family ? [`  family ${family}`] : []),
    hasConfig ? "  configuration" : "  no configuration in the file; assumed",
    `    alpha ${alpha}, dropout ${dropout}, router temperature ${routerTau}, consistency weight ${feclWeight}`,
    `    bands ${bands}, blur ${sigmaText}, matching ${matching}, targets ${shortened(targetModules.join(", "))}`,
    ...(await describeGates(adapter)).map((line) => `  ${line}`),
    ...table.map((line) => `  ${line}`),
  ];
}

/** The router's answer where all energy lies in one band, and where it is spread evenly: the corners and the middle. */
async function describeGates({ config, state }: LoadedAdapter<FeRAConfig>): Promise<string[]> {
  const { numBands, numExperts } = config;
  const rows = numBands + 1;
  const energies = new Float32Array(rows * numBands);
  for (let band = 0; band < numBands; band++) energies[band * numBands + band] = 1;
  energies.fill(1 / numBands, numBands * numBands);
  const own = [...state].filter(([name]) => name.startsWith("router."));
  const router = new SoftFrequencyRouter({
    numBands,
    numExperts,
    tau: config.routerTau,
    state: new Map(own.map(([name, value]) => [name.slice("router.".length), value])),
  });
  const { data } = await router.compute(tensor(energies, [rows, numBands])).finally(() => router.release());
  const listed = Math.min(numExperts, LISTED_EXPERTS);
  const table = Array.from({ length: rows }, (_, row) => [
    row < numBands ? `all energy in band ${row + 1}` : "energy spread evenly",
    ...Array.from({ length: listed }, (_, expert) => data[row * numExperts + expert]!.toFixed(3)),
  ]);
  const head = ["gates (bands from low to high)", ...Array.from({ length: listed }, (_, expert) => `${expert + 1}`)];
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
