// Curves as charts take them: one column of x for all, and numbers as people read them. Pure.

/** A curve of its own x. */
export interface Curve {
  label: string;
  /** A colour's token: "--series-1". */
  color: string;
  x: readonly number[];
  y: readonly number[];
  /** Behind the others, and left out of the summary. */
  isFaint?: boolean;
  isDashed?: boolean;
}

/** Curves over the same x; null where one has no value. */
export interface ChartTable {
  x: number[];
  columns: (number | null)[][];
}

/** Brings curves together; x ascends in each. */
export function joined(curves: readonly Pick<Curve, "x" | "y">[]): ChartTable {
  const x = [...new Set(curves.flatMap((curve) => [...curve.x]))].sort((a, b) => a - b);
  const places = new Map(x.map((value, place) => [value, place]));
  const columns = curves.map((curve) => {
    const column = new Array<number | null>(x.length).fill(null);
    for (const [i, value] of curve.x.entries()) {
      const y = curve.y[i];
      if (y !== undefined && Number.isFinite(y)) column[places.get(value)!] = y;
    }
    return column;
  });
  return { x, columns };
}

/** Columns on top of each other: each with those before it added. */
export function stacked({ x, columns }: ChartTable): ChartTable {
  const sums = new Array<number>(x.length).fill(0);
  return {
    x,
    columns: columns.map((column) =>
      column.map((value, i) => {
        sums[i]! += value ?? 0;
        return sums[i]!;
      }),
    ),
  };
}

/** At most `count` rows, evenly, the first and the last always. */
export function thinnedRows(rows: number, count: number): number[] {
  if (rows <= count) return Array.from({ length: rows }, (_, i) => i);
  return Array.from({ length: count }, (_, i) => Math.round((i * (rows - 1)) / (count - 1)));
}

/** 0.000123 → "1.23e-4", 0.0123 → "0.0123", 12345 → "12345". */
export function formatValue(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) return Number(value.toPrecision(3)).toExponential();
  return size >= 1000 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

/** Numbers along an axis, with as many digits as tell neighbours apart. */
export function formatAxis(splits: readonly (number | null)[], increment: number): string[] {
  const largest = Math.max(...splits.map((value) => Math.abs(value ?? 0)));
  // 2.5 has one digit behind the point, 0.00005 five.
  const [, digits = "", power = "0"] =
    /^\d+(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(String(Number(increment.toPrecision(6)))) ?? [];
  const decimals = Math.min(Math.max(digits.length - Number(power), 0), 20);
  return splits.map((value) => {
    if (value === null) return "";
    const rounded = Number(value.toFixed(decimals));
    return largest < 1e-3 || largest >= 1e6 ? (rounded === 0 ? "0" : rounded.toExponential()) : String(rounded);
  });
}

/** The value at a row, or the last before it. */
export function lastKnown(column: readonly (number | null)[], row: number): number | undefined {
  for (let i = Math.min(row, column.length - 1); i >= 0; i--) {
    const value = column[i];
    if (typeof value === "number") return value;
  }
  return undefined;
}

/** 0.4567 → "46 %". */
export const formatShare = (share: number): string => `${Math.round(100 * share)} %`;

/** What a curve does, in a sentence. */
export function summarized({ label, x, y }: Pick<Curve, "label" | "x" | "y">, xLabel: string): string {
  const known = x.flatMap((at, i) => (Number.isFinite(y[i]) ? [{ at, value: y[i]! }] : []));
  const [first, last] = [known[0], known.at(-1)];
  if (!first || !last) return `${label}: nothing yet.`;
  if (first === last) return `${label}: ${formatValue(first.value)} at ${xLabel} ${first.at}.`;
  const lowest = known.reduce((best, each) => (each.value < best.value ? each : best));
  return (
    `${label}: ${formatValue(first.value)} at ${xLabel} ${first.at}, ${formatValue(last.value)} at ${xLabel} ${last.at}, ` +
    `lowest ${formatValue(lowest.value)} at ${lowest.at}.`
  );
}
