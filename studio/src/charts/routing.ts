// A routed adapter's way through the sampling: curves, and what is to be seen in words. Pure.

import type { RoutingTrace } from "../../../src/studio/protocol.js";
import { closedGates, expertsInWords } from "../../../src/training/report/closed-gates.js";
import type { GatesAtStep } from "../../../src/training/report/step-report.js";
import { type Curve, formatShare } from "./chart-data.js";
import { seriesToken } from "./scheme.js";

/** Gates below this share of difference do not count as another's lead. */
const LEAST_LEAD = 0.02;

/** Curves over timesteps, ascending; one image of the trace. */
export function traceCurves(
  { timesteps, gates, energies }: RoutingTrace,
  image = 0,
): { gates: Curve[]; energies: Curve[] } {
  const order = timesteps.map((_, i) => i).sort((a, b) => timesteps[a]! - timesteps[b]!);
  // A sampler that visits a timestep twice has its last visit told.
  const kept = order.filter((i, place) => timesteps[order[place + 1] ?? -1] !== timesteps[i]);
  const x = kept.map((i) => timesteps[i]!);
  const curves = (
    table: readonly (readonly (readonly number[])[])[],
    name: (index: number, count: number) => string,
  ) => {
    const count = table[0]?.[image]?.length ?? 0;
    return Array.from(
      { length: count },
      (_, k): Curve => ({
        label: name(k, count),
        color: seriesToken(k),
        x,
        y: kept.map((i) => table[i]?.[image]?.[k] ?? 0),
      }),
    );
  };
  return { gates: curves(gates, (k) => `expert ${k + 1}`), energies: curves(energies, bandName) };
}

/** Bands are told from the coarse to the fine. */
export function bandName(index: number, count: number): string {
  if (count === 1) return "all frequencies";
  if (index === 0) return "low frequencies";
  if (index === count - 1) return "high frequencies";
  return count === 3 ? "middle frequencies" : `band ${index + 1} of ${count}`;
}

/** Which expert leads where, and by how much, in sentences. */
export function describeTrace({ timesteps, gates }: RoutingTrace, image = 0): string {
  const rows = gates.map((step) => step[image] ?? []);
  const [first, last] = [rows[0], rows.at(-1)];
  if (!first || !last || first.length === 0) return "Nothing was routed.";
  if (first.length === 1) return "There is one expert: it does everything.";
  const swing = Math.max(
    ...first.map((_, k) => Math.max(...rows.map((row) => row[k]!)) - Math.min(...rows.map((row) => row[k]!))),
  );
  if (swing < LEAST_LEAD) {
    const mix = last.map((gate, k) => `expert ${k + 1} ${formatShare(gate)}`).join(", ");
    return `The experts are mixed alike from noise to image: ${mix}.`;
  }
  const leads: { expert: number; from: number; most: number }[] = [];
  for (const [i, row] of rows.entries()) {
    const best = row.indexOf(Math.max(...row));
    const current = leads.at(-1);
    // The leader keeps its place until another is clearly ahead.
    const expert = current && row[best]! - row[current.expert]! < LEAST_LEAD ? current.expert : best;
    if (current?.expert === expert) current.most = Math.max(current.most, row[expert]!);
    else leads.push({ expert, from: timesteps[i]!, most: row[expert]! });
  }
  const [begin, ...further] = leads;
  if (further.length === 0) {
    const { expert } = begin!;
    return `Expert ${expert + 1} leads all the way: ${formatShare(first[expert]!)} in the noise, ${formatShare(last[expert]!)} in the image.`;
  }
  const takeovers = further.map(
    ({ expert, from, most }) =>
      `expert ${expert + 1} takes over at timestep ${Math.round(from)} (up to ${formatShare(most)})`,
  );
  return `Expert ${begin!.expert + 1} leads in the noise (up to ${formatShare(begin!.most)}); ${takeovers.join("; ")}.`;
}

/** How the mix changed between two steps of a training, in a sentence. */
export function describeChange(curves: readonly Curve[]): string {
  const changes = curves.flatMap(({ label, y }) => {
    const [first, last] = [y[0], y.at(-1)];
    return first === undefined || last === undefined ? [] : [{ label, first, last }];
  });
  if (changes.length === 0) return "Nothing was routed yet.";
  if (Math.max(...changes.map(({ first, last }) => Math.abs(first - last))) < LEAST_LEAD) {
    return "The router mixes the experts as it did at the beginning.";
  }
  const told = changes
    .map(({ label, first, last }) => `${label} went from ${formatShare(first)} to ${formatShare(last)}`)
    .join(", ");
  return `${told[0]!.toUpperCase()}${told.slice(1)}.`;
}

/**
 * Experts that hardly train, and what opens them; undefined where all are open at some timestep.
 *
 * @param told - The newest gates of a training.
 * @param router - The run's setting: what the gates follow.
 */
export function describeClosed(told: readonly GatesAtStep[], router: unknown): string | undefined {
  const closed = closedGates(told);
  if (closed.length === 0) return undefined;
  const [is, its] = closed.length === 1 ? ["is", "Its band is"] : ["are", "Their bands are"];
  const advice =
    router === "gates-are-energies"
      ? `${its} all but empty, and gates are the energies here: sigmaRule "latent" with twice the latents' shorter side as ` +
        "sigmaDivisor makes the finest blur half a latent pixel, which opens them."
      : "A higher routerTau opens them, or fewer experts do as much.";
  return `${expertsInWords(closed, told[0]!.gates.length)} ${is} closed at every timestep, and hardly trained. ${advice}`;
}
