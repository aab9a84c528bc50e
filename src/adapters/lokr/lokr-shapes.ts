// How LoKr splits a layer into Kronecker factors, and which of them are low-rank products.

import { FormatError } from "../../errors.js";
import type { TargetLayer } from "../target-layers.js";
import type { LoKrConfig } from "./lokr-config.js";

/** LyCORIS's and PEFT's names. */
export const LOKR_NAMES = [
  ...["lokr_w1", "lokr_w1_a", "lokr_w1_b"],
  ...["lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"],
] as const;

/**
 * A size as a product m · n, m ≤ n, as LyCORIS splits it: by the factor where it divides the size; otherwise m grows, from
 * divisor to divisor, while it is no more than the factor and m + n does not grow. −1 goes as near to a square as there is.
 */
export function factorization(size: number, factor: number): [m: number, n: number] {
  if (factor > 0 && size % factor === 0) return ordered(factor, size / factor);
  const most = factor < 0 ? size : factor;
  let [m, n] = [1, size];
  while (m < n) {
    let next = m + 1;
    while (size % next !== 0) next++;
    if (next + size / next > size + 1 || next > most) break;
    [m, n] = [next, size / next];
  }
  return ordered(m, n);
}

const ordered = (a: number, b: number): [number, number] => (a <= b ? [a, b] : [b, a]);

/** Shapes of a layer's tensors, by name. */
export function lokrShapes(
  layer: TargetLayer,
  rank: number,
  config: Pick<LoKrConfig, "factor" | "decomposeBoth" | "fullMatrix" | "useTucker">,
): Map<string, readonly number[]> {
  const { kind, kernelSize: k } = layer;
  const [outSmall, outLarge] = factorization(layer.outFeatures, config.factor);
  const [inSmall, inLarge] = factorization(layer.inFeatures, config.factor);
  const kernel = kind === "convolution" ? [k, k] : [];
  const isFactored = (side: number) => !config.fullMatrix && rank < side / 2;
  const shapes = new Map<string, readonly number[]>();
  if (config.decomposeBoth && isFactored(Math.max(outSmall, inSmall))) {
    shapes.set("lokr_w1_a", [outSmall, rank]).set("lokr_w1_b", [rank, inSmall]);
  } else shapes.set("lokr_w1", [outSmall, inSmall]);
  if (!isFactored(Math.max(outLarge, inLarge))) shapes.set("lokr_w2", [outLarge, inLarge, ...kernel]);
  else if (config.useTucker && k > 1) {
    shapes.set("lokr_w2_a", [rank, outLarge]).set("lokr_w2_b", [rank, inLarge]).set("lokr_t2", [rank, rank, k, k]);
  } else shapes.set("lokr_w2_a", [outLarge, rank]).set("lokr_w2_b", [rank, inLarge, ...kernel]);
  return shapes;
}

/** What a layer's tensors tell. */
export interface LokrLayer {
  layer: TargetLayer;
  /** Undefined where both factors are whole. */
  rank: number | undefined;
}

/**
 * A layer by the shapes of its tensors, which are checked against each other.
 *
 * @throws {FormatError} If one is missing, too many, or does not fit.
 */
export function lokrLayer(path: string, shapes: ReadonlyMap<string, readonly number[]>, source: string): LokrLayer {
  const refuse = (what: string): never => {
    throw new FormatError(source, `"${path}" ${what}.`);
  };
  const pair = (name: string): readonly (readonly number[])[] => {
    const [whole, a, b] = [shapes.get(name), shapes.get(`${name}_a`), shapes.get(`${name}_b`)];
    if (whole && (a || b)) return refuse(`has both ${name} and its factors`);
    if (whole) return [whole];
    if (!a || !b) return refuse(`lacks ${a ? `${name}_b` : b ? `${name}_a` : name}`);
    return [a, b];
  };
  const [first, second] = [pair("lokr_w1"), pair("lokr_w2")];
  const core = shapes.get("lokr_t2");
  if (core && second.length !== 2) refuse("has lokr_t2 beside a whole lokr_w2");
  const ranks = [
    ...(first.length === 2 ? [first[0]![1], first[1]![0]] : []),
    ...(second.length === 2 ? [core ? second[0]![0] : second[0]![1], second[1]![0]] : []),
    ...(core ? [core[0], core[1]] : []),
  ];
  if (ranks.some((rank) => rank !== ranks[0] || !rank)) refuse(`has factors of several ranks, ${ranks.join(", ")}`);
  const [outSmall, inSmall] = first.length === 2 ? [first[0]![0]!, first[1]![1]!] : [first[0]![0]!, first[0]![1]!];
  const last = second.at(-1)!;
  const [outLarge, inLarge] = [(core ? second[0]![1] : second[0]![0])!, last[1]!];
  const kernel = core ? core.slice(2) : last.slice(2);
  const dimensions = [
    first.every(({ length }) => length === 2),
    [0, 2].includes(kernel.length),
    kernel[0] === kernel[1],
  ];
  const sizes = [outSmall, inSmall, outLarge, inLarge, kernel[0] ?? 1];
  if (dimensions.includes(false) || sizes.some((size) => !(size > 0))) {
    const all = [...shapes].map(([name, shape]) => `${name} [${shape.join(",")}]`);
    refuse(`has tensors that are no Kronecker factors: ${all.join(", ")}`);
  }
  const layer: TargetLayer = {
    ...{ path, kind: kernel.length === 2 ? "convolution" : "linear", kernelSize: kernel[0] ?? 1 },
    ...{ inFeatures: inSmall * inLarge, outFeatures: outSmall * outLarge },
  };
  return { layer, rank: ranks[0] };
}
