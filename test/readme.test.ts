import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { it } from "vitest";
import { expectSameOutput, readmeProgram } from "./support/readme.js";

it("the README's program runs as printed there", async () => {
  const { program, output } = readmeProgram();
  // Inside the repository, so that "fera" resolves to the built package.
  mkdirSync("runs", { recursive: true });
  const folder = mkdtempSync("runs/readme-");
  try {
    const file = join(folder, "program.mjs");
    writeFileSync(file, program.replace("fera_output.safetensors", `${folder}/fera_output.safetensors`));
    const { stdout } = await promisify(execFile)(process.execPath, [file]);
    expectSameOutput(stdout, output);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
