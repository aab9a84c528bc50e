// The programs that the README shows, and what it says they print.

import { readFileSync } from "node:fs";
import { expect } from "vitest";

const NUMBER = /-?\d+\.\d+/g;
const README = readFileSync("README.md", "utf8");

/** The library program and its output. */
export function readmeProgram(): { program: string; output: string } {
  const [, program] = /```ts\n([\s\S]*?)```/.exec(README)!;
  const [, output] = /prints\n\n```\n([\s\S]*?)```/.exec(README)!;
  return { program: program!, output: output! };
}

/** The arguments of each line that starts with `npx fera`, in order. */
export function readmeCommands(file = "README.md"): string[][] {
  const lines = readFileSync(file, "utf8").match(/^npx fera .*$/gm)!;
  return lines.map((line) =>
    line
      .match(/"[^"]*"|\S+/g)!
      .map((part) => part.replaceAll('"', ""))
      .slice(2),
  );
}

/** Compares numbers with a tolerance, because other machines round otherwise in the last digits, and the rest exactly. */
export function expectSameOutput(printed: string, expected: string): void {
  expect(printed.replace(NUMBER, "#")).toBe(expected.replace(NUMBER, "#"));
  const numbers = printed.match(NUMBER)!.map(Number);
  expected.match(NUMBER)!.forEach((text, i) => {
    expect(Math.abs(numbers[i]! - Number(text))).toBeLessThan(1e-3 * Math.abs(Number(text)) + 1e-5);
  });
}
