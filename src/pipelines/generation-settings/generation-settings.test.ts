import sharp from "sharp";
import { beforeAll, describe, expect, it } from "vitest";
import { readPngTexts, withPngTexts } from "../../images/png-text.js";
import { comfyGraph, parseComfyGraph } from "./comfy-graph.js";
import { type GenerationSettings, readGenerationSettings, withGenerationSettings } from "./index.js";
import { parametersText, parseParametersText } from "./parameters-text.js";

const PLAIN: GenerationSettings = {
  prompt: "a red circle",
  steps: 25,
  sampler: "dpmpp_2m",
  guidanceScale: 7.5,
  seed: 1,
  width: 128,
  height: 96,
  model: "icons",
};

const FULL: GenerationSettings = {
  ...PLAIN,
  negativePrompt: "blurred",
  scheduleType: "Karras",
  clipSkip: 1,
  guidanceRescale: 0.7,
  batch: { size: 4, position: 2 },
  adapters: [
    { name: "inks", scale: 0.8 },
    { name: "film", scale: -0.5 },
  ],
};

/** Prompts that could be taken for something else. */
const HOSTILE = [
  "one, two: three",
  'she said "no", and left\\',
  "first line\nsecond line",
  "Steps: 5",
  "Steps: 5, Sampler: Euler, CFG scale: 1, Seed: 9",
  "first\nSteps: 5, Sampler: Euler, CFG scale: 1",
  "a 🐈‍⬛ beside 東京",
  "<script>alert(1)</script>",
  '(masked:1.3) [a|b] {"json": 1}',
  "NaN, Infinity",
];
/** Those that A1111's form cannot tell. */
const BEYOND_A1111 = [
  "  spaces around \t",
  "a\nNegative prompt: b",
  "<lora:inks:2> in words",
  "a zero \0 character",
  "\n\n",
];

let png: Uint8Array;
beforeAll(async () => {
  const create = { width: 8, height: 8, channels: 3, background: "teal" } as const;
  png = new Uint8Array(await sharp({ create }).png().toBuffer());
});

describe("the text of A1111", () => {
  it("is written as A1111 writes it", () => {
    expect(parametersText(PLAIN)).toBe(
      "a red circle\nSteps: 25, Sampler: DPM++ 2M, CFG scale: 7.5, Seed: 1, Size: 128x96, Model: icons",
    );
    expect(parametersText({ ...FULL, model: "my, model.safetensors" })).toBe(
      "a red circle <lora:inks:0.8><lora:film:-0.5>\nNegative prompt: blurred\n" +
        "Steps: 25, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 1, Size: 128x96, " +
        'Model: "my, model", Batch size: 4, Batch pos: 2, Clip skip: 2, Guidance rescale: 0.7',
    );
  });

  it.each(HOSTILE)("gives back the prompt %j", (prompt) => {
    for (const negativePrompt of [undefined, ...HOSTILE]) {
      const settings = { ...FULL, prompt, ...(negativePrompt && { negativePrompt }) };
      if (!negativePrompt) delete settings.negativePrompt;
      expect(parseParametersText(parametersText(settings))).toEqual({ format: "a1111", settings, others: [] });
    }
  });

  it("of A1111 itself is read, and what has no counterpart is told", () => {
    const text = `portrait, (sharp:1.2), <lora:film grain_v2:0.6:0.4>
in the rain
Negative prompt: ugly, bad
worse
Steps: 20, Sampler: DPM++ 2M SDE, Schedule type: Karras, CFG scale: 7, Seed: 965400086, Size: 512x768, \
Model hash: 45dee52b, Model: v1-5, pruned: yes, Denoising strength: 0.7, Clip skip: 2, Hires upscale: 2, \
Lora hashes: "film grain_v2: 0a1b, other: 2c3d", TI hashes: "a: 1, b: \\"2\\"", Version: v1.9.3`;
    expect(parseParametersText(text)).toEqual({
      format: "a1111",
      settings: {
        prompt: "portrait, (sharp:1.2), \nin the rain",
        negativePrompt: "ugly, bad\nworse",
        adapters: [{ name: "film grain_v2", scale: 0.4 }],
        ...{ steps: 20, sampler: "dpmpp_2m_sde", scheduleType: "Karras", guidanceScale: 7, seed: 965400086 },
        ...{ width: 512, height: 768, model: "v1-5", strength: 0.7, clipSkip: 1 },
      },
      others: ["pruned: yes", "Hires upscale: 2", 'TI hashes: a: 1, b: "2"'],
    });
  });

  it("of older versions names the spread of the steps behind the sampler", () => {
    const { settings } = parseParametersText("x\nSteps: 9, Sampler: DPM++ 2M Karras, CFG scale: 7");
    expect(settings).toMatchObject({ sampler: "dpmpp_2m", scheduleType: "Karras" });
  });

  it("with a sampler that is not known tells it", () => {
    const { settings, others } = parseParametersText("x\nSteps: 9, Sampler: Heun, CFG scale: seven, Seed: 1");
    expect(settings).toEqual({ prompt: "x", steps: 9, seed: 1 });
    expect(others).toEqual(["Sampler: Heun", "CFG scale: seven"]);
  });

  it("without settings is a prompt", () => {
    expect(parseParametersText("a cat: black, or white").settings).toEqual({ prompt: "a cat: black, or white" });
  });

  it("of a hostile length is read in a moment", () => {
    const long = `${"a ".repeat(500_000)}\n${'a:",'.repeat(200_000)}`;
    const start = performance.now();
    parseParametersText(long);
    expect(performance.now() - start).toBeLessThan(5_000);
  });
});

describe("the graph of ComfyUI", () => {
  it("has ComfyUI's nodes, linked to each other", () => {
    const graph = comfyGraph(FULL);
    const types = Object.values(graph).map(({ class_type }) => class_type);
    expect(types).toEqual([
      ...["CheckpointLoaderSimple", "LoraLoader", "LoraLoader", "CLIPSetLastLayer", "CLIPTextEncode", "CLIPTextEncode"],
      ...["EmptyLatentImage", "KSampler", "VAEDecode", "SaveImage"],
    ]);
    for (const { inputs } of Object.values(graph)) {
      for (const link of Object.values(inputs).filter(Array.isArray)) expect(graph).toHaveProperty(link[0]);
    }
    expect(Object.values(graph).find(({ class_type }) => class_type === "KSampler")!.inputs).toMatchObject({
      ...{ seed: 1, steps: 25, cfg: 7.5, sampler_name: "dpmpp_2m", scheduler: "karras", denoise: 1 },
    });
  });

  it.each([...HOSTILE, ...BEYOND_A1111])("gives back the prompt %j", (prompt) => {
    const { guidanceRescale: _, ...settings } = { ...FULL, prompt, negativePrompt: prompt };
    const read = parseComfyGraph(JSON.stringify(comfyGraph(settings)));
    expect(read).toEqual({ format: "comfyui", settings: { ...settings, batch: { size: 4, position: 0 } }, others: [] });
  });

  it("with a start image tells its name, and how much is drawn anew", () => {
    const { width: _, height: __, ...settings } = { ...PLAIN, startImage: "cat.png", strength: 0.6 };
    expect(parseComfyGraph(JSON.stringify(comfyGraph(settings)))!.settings).toEqual(settings);
  });

  it("of another shape tells what could not be read", () => {
    const graph = comfyGraph(PLAIN) as Record<string, { class_type: string; inputs: Record<string, unknown> }>;
    const sampler = Object.values(graph).find(({ class_type }) => class_type === "KSampler")!;
    sampler.inputs.seed = ["90", 0];
    sampler.inputs.sampler_name = "heun";
    sampler.inputs.positive = ["91", 0];
    graph["90"] = { class_type: "PrimitiveInt", inputs: {} };
    graph["91"] = { class_type: "ConditioningCombine", inputs: {} };
    const { settings, others } = parseComfyGraph(JSON.stringify(graph))!;
    expect(settings).toMatchObject({ prompt: "", steps: 25 });
    expect(settings).not.toHaveProperty("seed");
    expect(others).toEqual([
      "node PrimitiveInt",
      "node ConditioningCombine",
      "seed of the node KSampler, which another node gives",
      "sampler: heun",
      "a prompt that several nodes make",
    ]);
  });

  it("that goes in circles ends", () => {
    const graph = {
      1: { class_type: "KSampler", inputs: { model: ["2", 0] } },
      2: { class_type: "LoraLoader", inputs: { model: ["2", 0], lora_name: "a", strength_model: 1 } },
    };
    expect(parseComfyGraph(JSON.stringify(graph))!.settings.adapters!.length).toBeLessThan(100);
  });

  it.each(["", "[]", "{}", '{"1": 2}', "a prompt", '{"__proto__": {"class_type": "KSampler"}}'])(
    "is not taken for one: %j",
    (text) => expect(parseComfyGraph(text)).toBeUndefined(),
  );

  it("with Python's NaN is read", () => {
    const text = JSON.stringify(comfyGraph(PLAIN)).replace('"class_type":', '"is_changed":[NaN],"class_type":');
    expect(parseComfyGraph(text)!.settings).toEqual(PLAIN);
  });
});

describe("settings in PNG files", () => {
  it.each([...HOSTILE, ...BEYOND_A1111])("give back the prompt %j to the letter", (prompt) => {
    const settings = { ...FULL, prompt, negativePrompt: prompt };
    const file = withGenerationSettings(png, settings);
    expect(readGenerationSettings(file)).toEqual({ format: "fera", settings, others: [] });
  });

  it("stand there for A1111 and ComfyUI as well", () => {
    const texts = new Map(readPngTexts(withGenerationSettings(png, FULL)).map(({ keyword, text }) => [keyword, text]));
    expect(texts.get("parameters")).toBe(parametersText(FULL));
    expect(JSON.parse(texts.get("prompt")!)).toEqual(comfyGraph(FULL));
  });

  it("are found where only A1111 or only ComfyUI wrote them", () => {
    const read = (keyword: string, text: string) => readGenerationSettings(withPngTexts(png, [{ keyword, text }]));
    expect(read("parameters", parametersText(PLAIN))).toEqual({ format: "a1111", settings: PLAIN, others: [] });
    expect(read("prompt", JSON.stringify(comfyGraph(PLAIN)))).toEqual({
      format: "comfyui",
      settings: PLAIN,
      others: [],
    });
    expect(read("Software", "a paint program")).toBeUndefined();
    expect(read("prompt", "a prompt that is no graph")).toBeUndefined();
  });

  it.each([
    ["{", /its settings are no JSON object/],
    ["[]", /its settings are no JSON object/],
    ["{}", /"prompt" must be a text/],
    ['{"prompt": 1}', /"prompt" must be a text; got 1/],
    ['{"prompt": "", "steps": "9"}', /"steps" must be a number; got "9"/],
    ['{"prompt": "", "adapters": [1]}', /"adapters" must be a list of names and scales/],
  ])("that are malformed are refused: %s", (text, message) => {
    const file = withPngTexts(png, [{ keyword: "fera", text }]);
    expect(() => readGenerationSettings(file, "odd.png")).toThrow(message);
  });
});
