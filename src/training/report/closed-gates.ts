// Experts that no timestep opens, told by a router's gates. Pure: the page knows them, too.

import type { GatesAtStep } from "./step-report.js";

/** A mean gate below that, at every timestep, counts as closed. */
const OPEN = 0.01;

/** Indices of the experts whose gates are closed at every timestep; a single one is always open. */
export function closedGates(told: readonly GatesAtStep[]): number[] {
  const experts = told[0]?.gates.length ?? 0;
  return Array.from({ length: experts }, (_, expert) => expert).filter((expert) =>
    told.every(({ gates }) => gates[expert]! < OPEN),
  );
}

/** "Expert 2 of 3" or "Experts 2 and 3 of 3". @param closed - Indices. */
export function expertsInWords(closed: readonly number[], experts: number): string {
  const numbers = closed.map((expert) => expert + 1);
  const last = numbers.pop();
  const names = numbers.length === 0 ? `${last}` : `${numbers.join(", ")} and ${last}`;
  return `${closed.length === 1 ? "Expert" : "Experts"} ${names} of ${experts}`;
}
