// Numbers, durations and commands as people read them.

export { shellCommand } from "../training/options/command-line.js";

/** 3725 → "1 h 2 min"; 75 → "1 min 15 s"; 4.2 → "4 s". */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.round(whole / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** 34560 → "34,560". */
export const formatCount = (count: number): string => count.toLocaleString("en-US");

/** "1 image", "1,200 images". */
export const counted = (count: number, one: string, many = `${one}s`): string =>
  `${formatCount(count)} ${count === 1 ? one : many}`;

/** Columns of a table, the first `leftColumns` aligned left, the others right. */
export function formatTable(rows: readonly (readonly string[])[], leftColumns = 1): string[] {
  const widths = rows.reduce<number[]>(
    (known, row) => row.map((cell, column) => Math.max(known[column] ?? 0, cell.length)),
    [],
  );
  return rows.map((row) =>
    row
      .map((cell, column) => (column < leftColumns ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
      .join("  ")
      .trimEnd(),
  );
}
