// Making images loads nothing that only training needs.

import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { type FileImports, readImports } from "../scripts/check-rooms.js";

const TRAINING = /^(training|autodiff)\/|adamw|optimizer/i;
const src = fileURLToPath(new URL("../src", import.meta.url));
const imports = readImports(src);

/** Every file that is loaded with `entry`, with the file that asks for it. */
function reached(entry: string, among: ReadonlyMap<string, FileImports> = imports): Map<string, string> {
  const found = new Map([[entry, ""]]);
  for (const file of found.keys()) {
    for (const next of among.get(file)?.static ?? []) if (!found.has(next)) found.set(next, file);
  }
  return found;
}

const trainingIn = (files: ReadonlyMap<string, string>): string[] =>
  [...files].filter(([file]) => TRAINING.test(file)).map(([file, from]) => `${from} imports ${file}`);

describe.each(["pipelines/index.ts", "inference.ts", "node-inference.ts", "web-inference.ts"])("%s", (entry) => {
  it("reaches no training, no gradients and no optimizer, types included", () => {
    const files = reached(entry);
    expect([...files.keys()]).toEqual(
      expect.arrayContaining(["models/unet-2d-condition/unet-2d-condition.ts", "adapters/adapter-model.ts"]),
    );
    expect(trainingIn(files)).toEqual([]);
  });
});

it("what trains would be found", () => {
  expect(trainingIn(reached("library.ts")).length).toBeGreaterThan(3);
});

it("at run time, an image with adapters loads none of it either", async () => {
  const program = `
    import { register } from "node:module";
    const hook = "export async function load(url, context, next) {"
      + " if (url.startsWith('file:')) process._rawDebug('LOADED ' + url); return next(url, context); }";
    register("data:text/javascript," + encodeURIComponent(hook));
    const { StableDiffusionPipeline } = await import("fera/inference");
    const pipe = await StableDiffusionPipeline.fromPretrained("test/reference/pipeline-tiny");
    await pipe.loadAdapters("test/reference/pipeline-tiny/adapters.safetensors");
    const { images, route } = await pipe.generate({ prompt: "a", steps: 2, seed: 1 });
    console.log(JSON.stringify({ shape: images[0].shape, steps: route.timesteps.length }));
    await pipe.dispose();`;
  const options = { cwd: fileURLToPath(new URL("..", import.meta.url)) };
  const run = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", program], options);
  expect(JSON.parse(run.stdout)).toMatchObject({ steps: 2 });
  const loaded = [...run.stderr.matchAll(/^LOADED .*\/dist\/(.+)$/gm)].map(([, file]) => file!);
  expect(loaded).toContain("pipelines/denoise.js");
  expect(loaded.filter((file) => TRAINING.test(file))).toEqual([]);
});
