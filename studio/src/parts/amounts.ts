// Amounts as people read them, beside those that the command line has (src/cli/format.ts).

const UNITS = ["B", "KB", "MB", "GB", "TB"] as const;

/** 5_368_709_120 → "5.4 GB": decimal, as disks and graphics cards are sold. */
export function formatBytes(bytes: number): string {
  const power = Math.min(UNITS.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(bytes, 1)) / 3)));
  const amount = bytes / 1000 ** power;
  return `${amount < 10 && power > 0 ? amount.toFixed(1) : Math.round(amount)} ${UNITS[power]}`;
}

/** 1 → "1st", 12 → "12th", 22 → "22nd". */
export function ordinal(count: number): string {
  const isTeen = Math.floor(count / 10) % 10 === 1;
  const ending = isTeen ? "th" : (["th", "st", "nd", "rd"][count % 10] ?? "th");
  return `${count}${ending}`;
}
