// What an adapter holds, in lines.

import { adapterFormatOf, type LoadedAdapter, readAdapter } from "../fera/index.js";
import { counted, formatCount, formatTable } from "./format.js";

const LISTED_LAYERS = 16;
const FORMATS = { safetensors: "safetensors", torch: "PyTorch state dict", folder: "folder" } as const;

/** Layers, rank, experts, bands, parameters, configuration, and the norm of `lora_up` per expert. */
export async function describeAdapter(path: string, { all }: { all: boolean }): Promise<string[]> {
  const adapter = await readAdapter(path);
  const { layout, config, state, hasConfig } = adapter;
  const { layers, rank, numExperts, numBands } = layout;
  const parameters = [...state.values()].reduce((sum, { size }) => sum + size, 0);
  const { alpha, dropout, routerTau, feclWeight, bands, sigma, matching, targetModules } = config;
  const sigmaText = sigma.rule === "latent" ? `latent / ${sigma.divisor}` : sigma.rule;
  const shares = expertNorms(adapter);
  const totals = Array.from({ length: numExperts }, (_, expert) => Math.hypot(...shares.map((row) => row[expert]!)));
  const shown = all ? layers.length : LISTED_LAYERS;
  const table = formatTable([
    ["layer", "in", "out", ...totals.map((_, expert) => `‖up‖ ${expert + 1}`)],
    ...layers
      .slice(0, shown)
      .map(({ path, inFeatures, outFeatures }, layer) => [
        path,
        String(inFeatures),
        String(outFeatures),
        ...shares[layer]!.map(formatNorm),
      ]),
    ["all layers", "", "", ...totals.map(formatNorm)],
  ]);
  if (layers.length > shown) table.splice(-1, 0, `… ${layers.length - shown} more (--all lists them)`);
  return [
    `${path}: FeRA adapter, ${FORMATS[adapterFormatOf(path)]}`,
    `  rank ${rank}, ${counted(numExperts, "expert")}, ${counted(numBands, "band")}`,
    `  ${counted(layers.length, "layer")}, ${formatCount(parameters)} parameters`,
    hasConfig ? "  configuration" : "  no configuration in the file; assumed",
    `    alpha ${alpha}, dropout ${dropout}, router temperature ${routerTau}, consistency weight ${feclWeight}`,
    `    bands ${bands}, blur ${sigmaText}, matching ${matching}, targets ${targetModules.join(", ")}`,
    ...table.map((line) => `  ${line}`),
  ];
}

const formatNorm = (norm: number): string => (norm === 0 ? "0" : norm.toPrecision(3));

/** ‖up‖ (Frobenius) per layer and expert. */
function expertNorms({ layout, state }: LoadedAdapter): number[][] {
  return layout.layers.map(({ path }) =>
    Array.from({ length: layout.numExperts }, (_, expert) => {
      const up = state.get(`base_model.${path}.experts.${expert}.lora_up.weight`)!;
      return Math.sqrt(up.data.reduce((sum, value) => sum + value * value, 0));
    }),
  );
}
