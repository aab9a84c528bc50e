// Tables and numbers as a page has them.

import type { Interval } from "./statistics.js";

/** A table: its head, and rows of as many cells; the first columns are text, the others numbers. */
export function markdownTable(head: readonly string[], rows: readonly (readonly string[])[], textColumns = 1): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map((_, i) => (i < textColumns ? "---" : "---:"))), ...rows.map(line)].join("\n");
}

/** "−1.2 [−2.0, −0.4]", bold where the interval leaves zero out; without one the estimate alone. */
export function intervalText({ estimate, corrected }: Interval): string {
  if (!corrected) return signed(estimate);
  const [low, high] = corrected;
  const text = `${signed(estimate)} [${signed(low)}, ${signed(high)}]`;
  return low > 0 || high < 0 ? `**${text}**` : text;
}

/** A comparison's cell: "–" where it was not made, 0 where no pair differs. */
export const cellText = (cell: { interval?: Interval | undefined } | undefined): string => {
  if (!cell) return "–";
  return cell.interval ? intervalText(cell.interval) : "0";
};

/** With a sign, and as many digits as tell something: "+12", "−1.2", "+0.03". */
export function signed(value: number): string {
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : 2;
  const text = size.toFixed(digits);
  if (Number(text) === 0) return text;
  return `${value < 0 ? "−" : "+"}${text}`;
}

/** Four digits. */
export const fourDigits = (value: number): string => Number(value.toPrecision(4)).toString();

/** A share of 1 as percent. */
export const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;
