import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readPngTexts } from "../../src/images/png-text.js";
import { readGenerationSettings } from "../../src/pipelines/index.js";
import { runFera, writeTinyAdapter } from "../support/fera-program.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

let dir: string;
let model: string;
const generate = (...more: string[]) => runFera("generate", "--model", model, "--steps", "2", ...more);

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-cli-generate-"));
  model = join(dir, "model");
  await writeTinyPipeline(model);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe("fera generate", () => {
  it("knows families of flow matching by their folders, with the options that are theirs", async () => {
    const file = join(dir, "flux.png");
    const size = ["--width", "24", "--height", "16", "--output", file];
    const guided = ["--prompt", "a red circle", "--negative-prompt", "blue", "--true-cfg-scale", "3"];
    const flux = [
      "generate",
      "--model",
      "test/reference/pipelines/flux",
      "--steps",
      "1",
      "--max-sequence-length",
      "24",
    ];
    expect((await runFera(...flux, ...guided, ...size)).code).toBe(0);
    expect(await sharp(file).metadata()).toMatchObject({ width: 24, height: 16 });
    const refused = await generate("--prompt", "a", "--true-cfg-scale", "2", "--output", file);
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toMatch(/--true-cfg-scale is for FLUX.1; the model is a StableDiffusionPipeline/);
  });

  it("writes one image, makes its folders, and prints the seed that makes it again", async () => {
    const first = join(dir, "some/folder/image.png");
    const { code, stdout } = await generate("--prompt", "a red circle", "--output", first);
    expect(code).toBe(0);
    const seed = stdout.match(/^seed (\d+)$/m)![1]!;
    const again = join(dir, "again.png");
    await generate("--prompt", "a red circle", "--output", again, "--seed", seed);
    expect(readFileSync(again).equals(readFileSync(first))).toBe(true);
    expect(await sharp(first).metadata()).toMatchObject({ format: "png", width: 32, height: 32 });
  });

  it("takes a command line of many thousand characters", async () => {
    const file = join(dir, "long.png");
    const seeds = Array.from({ length: 3000 }, () => ["--seed", "1"]).flat();
    expect(await generate("--prompt", "a", "--output", file, ...seeds)).toMatchObject({ code: 0 });
    expect(existsSync(file)).toBe(true);
  });

  it("writes into a PNG file what it was made with, by its options' names or by default, without folders", async () => {
    const adapter = join(dir, "some where/my adapter.safetensors");
    await mkdir(join(dir, "some where"), { recursive: true });
    await writeTinyAdapter(model, adapter);
    const file = join(dir, "settings.png");
    await generate(
      ...["--prompt", "a\nλ", "--negative-prompt", "a: b", "--seed", "7", "--output", file],
      ...[
        "--adapter",
        adapter,
        "--adapter-scale",
        "0.5",
        "--scheduler",
        "dpmpp_2m",
        "--width",
        "24",
        "--num-images",
        "2",
      ],
    );
    const bytes = readFileSync(join(dir, "settings-2.png"));
    expect(readGenerationSettings(bytes)).toEqual({
      format: "fera",
      others: [],
      settings: {
        ...{ prompt: "a\nλ", negativePrompt: "a: b", steps: 2, sampler: "dpmpp_2m", guidanceScale: 7.5 },
        ...{ seed: 7, width: 24, height: 32, batch: { size: 2, position: 1 }, model: "model" },
        adapters: [{ name: "my adapter.safetensors", scale: 0.5 }],
      },
    });
    const keywords = readPngTexts(bytes).map(({ keyword }) => keyword);
    expect(keywords).toEqual(["parameters", "prompt", "fera"]);
    expect(bytes.includes(dir)).toBe(false);
  });

  it("writes the format that the ending of --output names", async () => {
    const write = async (name: string) => {
      await generate("--prompt", "red", "--seed", "1", "--output", join(dir, name));
      const { format } = await sharp(join(dir, name)).metadata();
      return { format, pixels: await sharp(join(dir, name)).removeAlpha().raw().toBuffer() };
    };
    const [png, webp, jpeg] = [await write("as.png"), await write("as.WEBP"), await write("as.jpg")];
    expect([png, webp, jpeg].map(({ format }) => format)).toEqual(["png", "webp", "jpeg"]);
    for (const { pixels } of [webp, jpeg]) {
      const off = pixels.reduce((sum, value, i) => sum + Math.abs(value - png.pixels[i]!), 0) / pixels.length;
      expect(off).toBeLessThan(10);
    }
  }, 120_000);

  it("numbers several images, and draws others with an adapter and another sampler", async () => {
    const adapter = join(dir, "adapter.safetensors");
    await writeTinyAdapter(model, adapter);
    const common = ["--prompt", "red", "--seed", "1", "--width", "24", "--height", "16"];
    const { code, stdout } = await generate(
      ...[...common, "--prompt", "blue", "--num-images", "2"],
      ...["--adapter", adapter, "--output", join(dir, "many.png")],
    );
    expect(code).toBe(0);
    for (let i = 1; i <= 4; i++) expect(stdout).toContain(`many-${i}.png  ${i <= 2 ? "red" : "blue"}`);
    const { width, height } = await sharp(join(dir, "many-4.png")).metadata();
    expect([width, height]).toEqual([24, 16]);
    await generate(...common, "--adapter", adapter, "--adapter-scale", "0", "--output", join(dir, "base.png"));
    await generate(...common, "--adapter", adapter, "--output", join(dir, "adapted.png"));
    await generate(...common, "--scheduler", "ddpm", "--output", join(dir, "ddpm.png"));
    const bytes = ["base", "adapted", "ddpm"].map((name) => readFileSync(join(dir, `${name}.png`)).toString("hex"));
    expect(new Set(bytes).size).toBe(3);
  }, 300_000);

  it("starts from an image, also with SDXL", async () => {
    const start = join(dir, "start.png");
    const output = join(dir, "from-image.png");
    await sharp({ create: { width: 24, height: 16, channels: 3, background: "teal" } }).toFile(start);
    const xl = ["--model", "test/reference/pipeline-tiny-xl", "--prompt", "red", "--steps", "2", "--output", output];
    const { code, stderr } = await runFera("generate", ...xl, "--image", start, "--strength", "0.5");
    expect(stderr).not.toContain("error");
    expect(code).toBe(0);
    expect(await sharp(output).metadata()).toMatchObject({ width: 24, height: 16 });
  });

  it.each([
    ["its own size, cut to what the model can draw", [], [36, 20]],
    ["a given size", ["--width", "16", "--height", "24"], [16, 24]],
    ["a given width, and a height in proportion", ["--width", "20"], [20, 12]],
  ])("starts from an image of any size, drawing at %s", async (_, flags, [width, height]) => {
    const start = join(dir, "any-size.jpg");
    const output = join(dir, "from-any-size.png");
    await sharp({ create: { width: 37, height: 23, channels: 3, background: "teal" } }).toFile(start);
    const { code, stderr } = await generate("--prompt", "red", "--image", start, "--output", output, ...flags);
    expect(stderr).not.toContain("error");
    expect(code).toBe(0);
    expect(await sharp(output).metadata()).toMatchObject({ width, height });
  });

  it.each([
    ["a strength without an image", 2, ["--prompt", "red", "--strength", "0.5"], /--strength needs --image/],
    [
      "a strength above 1",
      2,
      ["--prompt", "red", "--strength", "2"],
      /--strength must be .* above 0 and 1 or less; got/,
    ],
    ["threads beyond reason", 2, ["--prompt", "red", "--threads", "100000"], /--threads must be .* from 1 to 1024/],
    ["a prompt that is too long", 1, ["--prompt", "one two three four five six seven"], /does not fit. Shorten/],
    ["a width that does not fit", 1, ["--prompt", "red", "--width", "30"], /width must be a positive multiple of 4/],
    [
      "such a width for an image",
      1,
      ["--prompt", "red", "--image", "docs/routing.png", "--width", "30"],
      /: width must/,
    ],
    ["an adapter that is missing", 1, ["--prompt", "red", "--adapter", "none.pt"], /none\.pt: cannot be read/],
    [
      "an output of an unknown format",
      2,
      ["--prompt", "red", "--output", "image.gif"],
      /--output must end in one of \.png, \.jpg, \.jpeg, \.webp; got "image\.gif"/,
    ],
    ["no prompt", 2, [], /--prompt is required/],
    ["a sampler that is unknown", 2, ["--prompt", "red", "--scheduler", "x"], /must be one of ddim, .*got "x"/],
  ])("ends with a message for %s, with exit code %i", async (_, expected, flags, message) => {
    const output = join(dir, "refused.png");
    const { code, stderr } = await generate("--output", output, ...flags);
    expect(stderr).toMatch(message);
    expect(/^Usage: /m.test(stderr)).toBe(expected === 2);
    expect(code).toBe(expected);
    expect(existsSync(output)).toBe(false);
  });

  it("says before any work that the output cannot be written", async () => {
    const { code, stderr } = await generate("--prompt", "red", "--output", join(model, "model_index.json/x.png"));
    expect(stderr).toMatch(/x\.png: its folder cannot be written/);
    expect(stderr).not.toContain("sampling");
    expect(code).toBe(1);
  });

  it("refuses an adapter for another model, naming the first layer and counting the rest", async () => {
    const path = join(dir, "foreign.safetensors");
    await writeTinyAdapter("test/reference/pipeline-tiny", path);
    const { code, stderr } = await generate("--prompt", "red", "--adapter", path, "--output", join(dir, "no.png"));
    expect(stderr).toMatch(/foreign\.safetensors: .*the layer ".*" is .* in the adapter and .* and \d+ more of its/);
    expect(code).toBe(1);
  });
});
