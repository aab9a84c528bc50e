import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { readPictures } from "./run-folder.js";

let run: string;
let folder: string;

beforeAll(async () => {
  run = await mkdtemp(join(tmpdir(), "fera-run-"));
  folder = join(run, "validation/prompt-0123abcd");
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "prompt.json"), '{"prompt":"a cat"}');
});
afterAll(() => rm(run, { recursive: true }));

it("a picture's name makes no list of millions of places", async () => {
  const names = ["without.png", "step-000002.png", "step-000002-2.png", "step-1-4000000000.png", "step-1-0.png"];
  for (const name of names) await writeFile(join(folder, name), "");
  const [pictures] = await readPictures(run);
  expect(pictures!.images).toBe(2);
  const path = "validation/prompt-0123abcd";
  expect(pictures!.steps).toEqual([{ step: 2, files: [`${path}/step-000002.png`, `${path}/step-000002-2.png`] }]);
});

it.each([
  ["words", { timesteps: ["a"], energies: [[[1]]], gates: [[[1]]] }],
  ["rows of several lengths", { timesteps: [1, 0], energies: [[[1]], [[1]]], gates: [[[1, 2]], [[1]]] }],
  ["fewer rows than timesteps", { timesteps: [1, 0], energies: [[[1]]], gates: [[[1]]] }],
  ["no rows", { timesteps: [1], energies: [1], gates: [null] }],
])("a trace of %s is left out", async (_, trace) => {
  expect(await routesOf(trace)).toBeUndefined();
});

it("a trace of a row for every image and timestep is read", async () => {
  const trace = { timesteps: [1, 0], energies: [[[1]], [[1]]], gates: [[[0.5, 0.5]], [[0, 1]]] };
  expect(await routesOf(trace)).toEqual([{ ...trace, weights: trace.gates }]);
});

async function routesOf(trace: object) {
  await writeFile(join(folder, "step-000003.png"), "");
  await writeFile(join(folder, "step-000003.json"), JSON.stringify(trace));
  const [pictures] = await readPictures(run);
  return pictures!.steps.find(({ step }) => step === 3)!.routes;
}
