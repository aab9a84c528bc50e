// Axes of a plot: ranges, ticks at round numbers, their labels. Pure.

/** A mapping of values to pixels, with the ticks to draw. */
export interface Scale {
  /** Pixel of a value; not finite when a logarithmic axis has no place for it. */
  at(value: number): number;
  ticks: { value: number; label: string }[];
}

/**
 * A linear axis.
 *
 * @param range - Values at the first and the last pixel; the first may be the larger one.
 * @param count - Ticks wanted, roughly; steps are 1, 2 or 5 times a power of ten.
 */
export function linearScale(range: readonly [number, number], pixels: readonly [number, number], count: number): Scale {
  const [from, to] = range;
  const low = Math.min(from, to);
  const high = Math.max(from, to);
  const step = roundStep((high - low) / Math.max(1, count));
  const ticks: Scale["ticks"] = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index++) {
    const value = index * step;
    ticks.push({ value, label: formatTick(value, step) });
  }
  return { at: (value) => pixels[0] + ((value - from) / (to - from)) * (pixels[1] - pixels[0]), ticks };
}

/** A logarithmic axis to base ten; both ends must be positive. Ticks are powers of ten, with 2 and 5 where few fit. */
export function logScale(range: readonly [number, number], pixels: readonly [number, number], count: number): Scale {
  const [from, to] = range.map(Math.log10) as [number, number];
  const low = Math.min(from, to);
  const high = Math.max(from, to);
  const steps = high - low < 2 ? [1, 2, 5] : [1];
  const every = Math.max(1, Math.ceil((high - low) / Math.max(1, count)));
  const ticks: Scale["ticks"] = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++) {
    if (steps.length === 1 && power % every !== 0) continue;
    for (const step of steps) {
      const value = step * 10 ** power;
      const place = Math.log10(value);
      if (place >= low - 1e-9 && place <= high + 1e-9) ticks.push({ value, label: formatTick(value, value) });
    }
  }
  const at = (value: number) => pixels[0] + ((Math.log10(value) - from) / (to - from)) * (pixels[1] - pixels[0]);
  return { at, ticks };
}

/**
 * The range of some values with room around them.
 *
 * @param values - Numbers that are not finite, or not positive on a logarithmic axis, are left out.
 * @param room - Share of the span (of its logarithm) added at either end.
 * @returns undefined when no value is left.
 */
export function rangeOf(
  values: Iterable<number>,
  { log = false, room = 0 }: { log?: boolean; room?: number } = {},
): [number, number] | undefined {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const value of values) {
    if (!Number.isFinite(value) || (log && value <= 0)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return undefined;
  if (log) {
    const factor = low === high ? 2 : (high / low) ** room;
    return [low / factor, high * factor];
  }
  const extra = low === high ? Math.abs(low) * 0.1 || 1 : (high - low) * room;
  return [low - extra, high + extra];
}

function roundStep(raw: number): number {
  const power = 10 ** Math.floor(Math.log10(raw));
  const lead = raw / power;
  return (lead > 5 ? 10 : lead > 2 ? 5 : lead > 1 ? 2 : 1) * power;
}

function formatTick(value: number, step: number): string {
  const size = Math.max(Math.abs(value), step);
  if (Math.abs(value) < step * 1e-6) return "0";
  // "−" is the sign that fits the digits; "-" is a hyphen.
  if (size >= 1e6 || size < 1e-3) {
    const [digits, power] = value.toExponential(2).split("e");
    return `${Number(digits)}e${Number(power)}`.replaceAll("-", "−");
  }
  const decimals = Math.min(6, Math.max(0, Math.ceil(-Math.log10(step) - 1e-9)));
  return value.toFixed(decimals).replace("-", "−");
}
