// What a bundler makes of the package for browsers: package.json's `sideEffects` keeps the runtime and the storage, and drops
// what a page does not use. Takes the built files, `dist/`.

import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build, type Rollup } from "vite";
import { expect, it } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));

/** The modules under dist/ in the bundle of a page, apart from those that are loaded when they are asked for. */
async function bundled(program: string): Promise<{ first: string[]; later: string[] }> {
  const page = "virtual:page";
  const { output } = (await build({
    ...{ root, configFile: false, publicDir: false, logLevel: "error" },
    build: { write: false, minify: false, target: "esnext", rollupOptions: { input: page } },
    plugins: [
      {
        name: "page",
        resolveId: (id) => (id === page ? resolve(root, "page.js") : undefined),
        load: (id) => (id === resolve(root, "page.js") ? program : undefined),
      },
    ],
  })) as Rollup.RollupOutput;
  const chunks = output.filter((file) => file.type === "chunk");
  const entry = chunks.find(({ isEntry }) => isEntry)!;
  const firstChunks = [entry, ...chunks.filter(({ fileName }) => entry.imports.includes(fileName))];
  const modulesOf = (some: typeof chunks) =>
    some
      .flatMap(({ modules }) =>
        Object.entries(modules).flatMap(([id, { renderedLength }]) => (renderedLength > 0 ? id : [])),
      )
      .flatMap((id) => /\/dist\/(.+\.js)$/.exec(id.split("?")[0]!)?.[1] ?? []);
  return { first: modulesOf(firstChunks), later: modulesOf(chunks.filter((chunk) => !firstChunks.includes(chunk))) };
}

const TRAINING = /^(training|autodiff)\//;

it.each(["fera", "fera/inference"])(
  "a page that imports one class of %s gets the runtime and the storage with it",
  async (entry) => {
    const { first } = await bundled(`import { AutoencoderKL } from "${entry}"; console.log(AutoencoderKL);`);
    expect(first).toEqual(expect.arrayContaining(["runtime/web.js", "storage/web.js"]));
    expect(first).toContain("models/autoencoder-kl/autoencoder-kl.js");
    expect(first.filter((module) => /^(images\/image-file|storage\/node|runtime\/node)\.js$/.test(module))).toEqual([]);
  },
);

it("a page that makes images with all of fera's adapters loads training only when it trains", async () => {
  const { first, later } = await bundled(
    'import { FeRAModel, StableDiffusionPipeline } from "fera"; console.log(FeRAModel, StableDiffusionPipeline);',
  );
  expect(first).toContain("pipelines/denoise.js");
  expect(first.filter((module) => TRAINING.test(module))).toEqual([]);
  expect(later).toContain("training/train-step.js");
});
