// fera doctor of the whole program: slow, as it builds the steps of two large models.

import { cpus, totalmem } from "node:os";
import { expect, it } from "vitest";
import type { Diagnosis } from "../../src/cli/doctor.js";
import { runFera } from "../support/fera-program.js";

it("tells the machine, the devices that work, and what GPUs would leave to the CPU", async () => {
  const { code, stdout } = await runFera("doctor", "--json");
  expect(code).toBe(0);
  const told = JSON.parse(stdout) as Diagnosis;
  expect(told.cpu.processors).toBe(cpus().length);
  expect(told.memory.totalBytes).toBe(totalmem());
  expect(told.memory.availableBytes).toBeLessThan(told.memory.totalBytes);
  expect(told.devices).toContainEqual({ device: "cpu", works: true });
  expect(told.devices.map(({ device }) => device)).toContain(told.chosen.auto);
  expect(Object.keys(told.fallbacks)).toEqual(["Stable Diffusion 1.5", "SDXL"]);
  for (const providers of Object.values(told.fallbacks)) {
    const by = Object.fromEntries(providers.map((each) => [each.provider, each]));
    expect(by.webgpu!.operators).toEqual([]);
    expect(by.cuda!.operators).toEqual([]);
    expect(by.dml!.operators.map(({ operator }) => operator)).toEqual(["Gelu"]);
    expect(by.coreml!.operators.length).toBeGreaterThan(10);
    expect(by.webgpu!.nodes).toBeGreaterThan(10_000);
  }
}, 300_000);
