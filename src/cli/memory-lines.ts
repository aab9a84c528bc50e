// What a command will take of memory, as lines.

import { type MemoryPlan, memoryText } from "../training/index.js";
import { formatTable } from "./format.js";

/** A line for the limit, and one for each phase. */
export function describeMemory({ limitBytes, phases }: MemoryPlan): string[] {
  const rows = phases.map(({ name, bytes, note = "" }) => [`  ${name}`, memoryText(bytes), note]);
  return [
    `memory    at most ${memoryText(limitBytes)}; expected of the whole process, at the peak of each part:`,
    ...formatTable(rows.map(([name, bytes]) => [name!, bytes!])).map((line, i) =>
      [line, rows[i]![2]].join("  ").trimEnd(),
    ),
  ];
}
