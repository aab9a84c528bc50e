import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { readImage } from "../images/image-file.js";
import { zeros } from "../tensor/tensor.js";
import { beforeAfterPicture, routingPicture } from "./demo-pictures.js";

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
