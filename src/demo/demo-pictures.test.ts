import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { readImage, writePng } from "../images/image-file.js";
import { zeros } from "../tensor/tensor.js";
import { beforeAfterPicture, progressPicture, routingPicture } from "./demo-pictures.js";

const folder = mkdtempSync(join(tmpdir(), "fera-pictures-"));
afterAll(() => rmSync(folder, { recursive: true }));

it("stacks the plots of energies and gates into one picture", async () => {
  const path = join(folder, "routing.png");
  const route = {
    timesteps: [900, 500, 100],
    energies: [[[0.5, 0.3, 0.2]], [[0.6, 0.3, 0.1]], [[0.7, 0.2, 0.1]]],
    gates: [[[0.4, 0.3, 0.3]], [[0.3, 0.4, 0.3]], [[0.3, 0.3, 0.4]]],
  };
  await routingPicture(path, route);
  const { shape } = await readImage(path);
  expect(shape[0]).toBe(3);
  expect(shape[1]!).toBeGreaterThan(shape[2]!);
});

it("puts base, adapted and target of each name into a row", async () => {
  const path = join(folder, "before-after.png");
  const image = zeros([3, 16, 16]);
  const row = { caption: "a", base: image, adapted: image, truth: { data: image.data, size: 16 } };
  await beforeAfterPicture(path, [row, { ...row, caption: "b" }], "style");
  const [, height, width] = (await readImage(path)).shape;
  expect(width).toBeGreaterThan(3 * 96);
  expect(height).toBeGreaterThan(2 * 96);
});

it("shows each prompt from its first picture to its last", async () => {
  const output = join(folder, "run");
  const prompt = join(output, "validation", "prompt-0123abcd");
  mkdirSync(prompt, { recursive: true });
  writeFileSync(join(prompt, "prompt.json"), JSON.stringify({ prompt: "guitar" }));
  for (const name of ["without", "step-000100", "step-000200"]) {
    await writePng(join(prompt, `${name}.png`), zeros([3, 128, 128]));
  }
  const path = join(folder, "progress.png");
  await progressPicture(path, output, ["guitar", "never drawn"], "style");
  const [, height, width] = (await readImage(path)).shape;
  expect(width).toBeGreaterThan(3 * 128);
  expect(height).toBeLessThan(2 * 128);
});
