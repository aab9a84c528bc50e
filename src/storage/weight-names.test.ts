import { describe, expect, it } from "vitest";
import { adviceForMissingWeights, chooseWeights, shardsOf } from "./weight-names.js";

const UNET = "diffusion_pytorch_model";

describe("chooseWeights", () => {
  it.each([
    ["safetensors before pickles", [`${UNET}.bin`, `${UNET}.safetensors`], undefined, `${UNET}.safetensors`],
    [
      "one file before shards",
      [`${UNET}.safetensors.index.json`, `${UNET}.safetensors`],
      undefined,
      `${UNET}.safetensors`,
    ],
    [
      "the variant before the plain",
      [`${UNET}.safetensors`, `${UNET}.fp16.safetensors`],
      "fp16",
      `${UNET}.fp16.safetensors`,
    ],
    ["the variant's pickle before the plain", [`${UNET}.safetensors`, `${UNET}.fp16.bin`], "fp16", `${UNET}.fp16.bin`],
    ["the plain where there is no variant", [`${UNET}.safetensors`], "fp16", `${UNET}.safetensors`],
    ["no variant that was not asked for", [`${UNET}.fp16.safetensors`], undefined, undefined],
    ["a pickle's index", [`${UNET}.bin.index.json`], undefined, `${UNET}.bin.index.json`],
  ])("takes %s", (_, names, variant, file) => {
    expect(chooseWeights(names, UNET, variant)?.file).toBe(file);
  });

  it("knows that transformers names its pickles otherwise", () => {
    expect(chooseWeights(["pytorch_model.bin", "model.bin"], "model", undefined)?.file).toBe("pytorch_model.bin");
  });
});

describe("shardsOf", () => {
  const names = [
    `${UNET}-00001-of-00002.safetensors`,
    `${UNET}-00002-of-00002.safetensors`,
    `${UNET}.fp16-00001-of-00001.safetensors`,
    `${UNET}-00001-of-00001.fp16.safetensors`,
    `${UNET}_xl-00001-of-00001.safetensors`,
    `${UNET}-00001-of-00002.bin`,
    `${UNET}.non_ema.safetensors`,
  ];

  it("gives the shards of an index, and of its variant only", () => {
    const plain = { file: `${UNET}.safetensors.index.json`, isIndex: true, format: "safetensors" } as const;
    expect(shardsOf(names, plain, "fp16")).toEqual(names.slice(0, 2));
    for (const file of [`${UNET}.safetensors.index.fp16.json`, `${UNET}.fp16.safetensors.index.json`]) {
      expect(shardsOf(names, { ...plain, file }, "fp16")).toEqual(names.slice(2, 4));
    }
  });
});

describe("adviceForMissingWeights", () => {
  it("names a variant that is there, or the way out of pickles", () => {
    expect(adviceForMissingWeights([`${UNET}.fp16.safetensors`], UNET)).toContain('"fp16"');
    expect(adviceForMissingWeights(["weights.ckpt"], UNET)).toContain("convert them to safetensors");
    expect(adviceForMissingWeights([], UNET)).toContain("Fetch");
  });
});
