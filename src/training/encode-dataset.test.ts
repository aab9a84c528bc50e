import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import "../index.js";
import { type Conditioning, conditioningOf, createObjective } from "../diffusion/index.js";
import { StableDiffusionXLPipeline } from "../pipelines/index.js";
import { Generator } from "../tensor/random.js";
import { encodeDataset } from "./encode-dataset.js";
import { tokenizeCaptions } from "./encode-images.js";
import type { EncodedDataset } from "./encoded-dataset.js";
import { type ImageDataset, openDataset } from "./index.js";
import { diffusionBatch } from "./noised-batch.js";

const SIZE = 32;

let dir: string;
let pipeline: StableDiffusionXLPipeline;
let dataset: ImageDataset;
let encoded: EncodedDataset;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-encode-"));
  const images = { wide: [96, 48], tall: [30, 61], small: [8, 8] } as const;
  for (const [name, [width, height]] of Object.entries(images)) {
    const file = join(dir, `${name}.png`);
    await sharp({ create: { width, height, channels: 3, background: "teal" } }).toFile(file);
  }
  await writeFile(join(dir, "drawn.svg"), `<svg xmlns="http://www.w3.org/2000/svg" width="9" height="5"/>`);
  pipeline = await StableDiffusionXLPipeline.fromPretrained("test/reference/pipeline-tiny-xl");
  dataset = await openDataset(dir, { size: SIZE });
  encoded = await encodeDataset(pipeline, dataset);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe("encodeDataset of SDXL", () => {
  it("tells each image's size in its file, its crop after scaling, and the size that is trained on", () => {
    const expected: Record<string, number[]> = {
      "wide.png": [48, 96, 0, 16, SIZE, SIZE],
      "tall.png": [61, 30, 17, 0, SIZE, SIZE], // 61 · 32/30 = 65 rows
      "small.png": [8, 8, 0, 0, SIZE, SIZE],
      "drawn.svg": [SIZE, SIZE, 0, 0, SIZE, SIZE],
    };
    const rows = encoded.conditioning.timeIds!;
    expect(rows.shape).toEqual([4, 6]);
    for (let i = 0; i < dataset.size; i++) {
      expect([...rows.data.subarray(6 * i, 6 * i + 6)], dataset.name(i)).toEqual(expected[dataset.name(i)]);
    }
  });

  it("takes the text of both encoders, as generate does, and zeros for the empty caption", async () => {
    const captions = Array.from({ length: dataset.size }, (_, i) => dataset.caption(i));
    const states = await pipeline.encodePrompt(captions);
    const { encoderHiddenStates, textEmbeds } = encoded.conditioning;
    expect(encoderHiddenStates!.data).toEqual(states.encoderHiddenStates.data);
    expect(textEmbeds!.data).toEqual(states.textEmbeds.data);
    expect(Object.keys(encoded.empty)).toEqual(["encoderHiddenStates", "textEmbeds"]);
    for (const [name, { data, shape }] of Object.entries(encoded.empty)) {
      expect(shape).toEqual([1, ...encoded.conditioning[name]!.shape.slice(1)]);
      expect(Array.from(data, Number).every((value) => value === 0)).toBe(true);
    }
  });

  it("gives batches that have each row's conditions, and without its caption only its sizes", () => {
    const objective = createObjective(pipeline.schedulerConfig);
    const options = { objective, generator: new Generator(0), dropped: [false, true] };
    const { textEmbeds, timeIds } = conditioningOf(diffusionBatch(encoded, [2, 0], options));
    const values = (of: Conditioning, name: string) => of[name]!.data as Float32Array;
    const pooled = values(encoded.conditioning, "textEmbeds");
    const features = textEmbeds!.shape[1]!;
    expect(textEmbeds!.data).toEqual(
      Float32Array.from([...pooled.subarray(2 * features, 3 * features), ...values(encoded.empty, "textEmbeds")]),
    );
    const sizes = values(encoded.conditioning, "timeIds");
    expect(timeIds!.data).toEqual(Float32Array.from([...sizes.subarray(12, 18), ...sizes.subarray(0, 6)]));
  });
});

describe("tokenizeCaptions", () => {
  const long = "one two three four five six seven eight";

  it("names every caption that is too long, ten of many", () => {
    const name = (i: number) => `${i}\u001b.png`;
    const one = () => tokenizeCaptions(pipeline.tokenizer, ["red", long], name);
    expect(one).toThrow(
      /^a caption is longer than the 16 tokens .*: 1\\u\{1b\}\.png "one .*": ".*eight" does not fit\. Shorten it/,
    );
    const all = () => tokenizeCaptions(pipeline.tokenizer, ["red", ...new Array(12).fill(long)], name);
    expect(all).toThrow(/^12 of 13 captions are longer .* 10\\u\{1b\}\.png .*; … and 2 more\. Shorten them\.$/);
  });

  it("refuses a caption of megabytes before it is tokenized, and quotes 200 characters of it", () => {
    const started = performance.now();
    const refused = () => tokenizeCaptions(pipeline.tokenizer, ["word ".repeat(2_000_000)]);
    expect(refused).toThrow(
      /^a prompt may have 65536 characters at most; got "word .{195}…" \(10000000 characters\)\.$/,
    );
    expect(performance.now() - started).toBeLessThan(10_000);
  });
});
