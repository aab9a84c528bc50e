import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";

const NUMBER = /-?\d+\.\d+/g;

it("the README's program runs as printed there", async () => {
  const readme = readFileSync("README.md", "utf8");
  const [, program] = /```ts\n([\s\S]*?)```/.exec(readme)!;
  const [, expected] = /prints\n\n```\n([\s\S]*?)```/.exec(readme)!;
  // Inside the repository, so that "fera" resolves to the built package.
  mkdirSync("runs", { recursive: true });
  const folder = mkdtempSync("runs/readme-");
  try {
    const file = join(folder, "program.mjs");
    writeFileSync(file, program!.replace("fera_output.safetensors", `${folder}/fera_output.safetensors`));
    const { stdout } = await promisify(execFile)(process.execPath, [file]);
    expect(stdout.replace(NUMBER, "#")).toBe(expected!.replace(NUMBER, "#"));
    // Other machines round otherwise in the last digits.
    const numbers = stdout.match(NUMBER)!.map(Number);
    expected!.match(NUMBER)!.forEach((text, i) => {
      expect(Math.abs(numbers[i]! - Number(text))).toBeLessThan(1e-3 * Math.abs(Number(text)) + 1e-5);
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});
