import { describe, expect, it } from "vitest";
import type { DrawnImage } from "../../../../src/studio/protocol.js";
import { EMPTY_FORM, fittingAdapters, formOf, readForm, requestOf, settingsLine, withSettings } from "./draw-form.js";

const choices = {
  models: [
    { id: "/models/icons", label: "icons" },
    { id: "embedded", label: "the embedded model" },
  ],
  adapters: [
    { id: "/runs/a/inks.safetensors", label: "inks of a", run: "a", model: "/models/icons" },
    { id: "/runs/b/film.safetensors", label: "film of b", run: "b", model: "/models/other" },
    { id: "/files/any.safetensors", label: "any" },
  ],
  samplers: ["ddim", "euler"],
};
const form = { ...EMPTY_FORM, model: "/models/icons", prompt: "a cat" };

describe("the form", () => {
  it("asks for a picture, what is left empty being the model's own", () => {
    expect(readForm(form, choices).request).toEqual({
      ...{
        model: "/models/icons",
        prompt: "a cat",
        seed: 1,
        steps: 25,
        guidanceScale: 7.5,
        adapters: [],
        compare: false,
      },
    });
  });

  it("asks for adapters that fit the model, and for a grid", () => {
    const adapters = { "/runs/a/inks.safetensors": 0.5, "/runs/b/film.safetensors": 1 };
    const grid = { hasGrid: true, y: { option: "seed" as const, values: "1-2" } };
    const { request, count } = readForm({ ...form, adapters, compare: true, ...grid, width: "64" }, choices);
    expect(request).toMatchObject({
      ...{ width: 64, compare: true, adapters: [{ id: "/runs/a/inks.safetensors", scale: 0.5 }] },
      grid: { x: { option: "adapterScale", values: [0, 0.5, 1] }, y: { option: "seed", values: [1, 2] } },
    });
    expect(count).toBe(12);
  });

  it.each([
    [{ seed: "" }, { seed: /whole number from 0/ }],
    [{ seed: "-1" }, { seed: /whole number from 0/ }],
    [{ steps: "2.5" }, { steps: /whole number from 1/ }],
    [{ guidanceScale: "x" }, { guidanceScale: /number from 0 to 100/ }],
    [{ width: "99999" }, { width: /pixels from 8 to 4096/ }],
    [{ model: "" }, { model: /Choose a model/ }],
    [{ compare: true }, { compare: /Choose an adapter/ }],
    [{ hasGrid: true }, { adapters: /needs an adapter/ }],
    [{ hasGrid: true, x: { option: "seed", values: "a" } }, { x: /neither a number nor a range/ }],
    [
      { hasGrid: true, x: { option: "seed", values: "1" }, y: { option: "seed", values: "2" } },
      { y: /Both sides vary the seed/ },
    ],
    [
      { hasGrid: true, x: { option: "seed", values: "1-60" }, y: { option: "steps", values: "1-60" } },
      { x: /3600 pictures; at most 256/ },
    ],
  ])("tells what is wrong: %j", (change, expected) => {
    const { request, problems } = readForm({ ...form, ...change } as typeof form, choices);
    expect(request).toBeUndefined();
    expect(Object.keys(problems)).toEqual(Object.keys(expected));
    for (const [field, message] of Object.entries(expected)) expect(problems[field as "x"]).toMatch(message);
  });
});

it("adapters that fit are those of the model, and those of no known one", () => {
  expect(fittingAdapters(choices.adapters, "/models/icons").map(({ label }) => label)).toEqual(["inks of a", "any"]);
});

describe("a file's settings", () => {
  it("fill the form, names standing for the paths here", () => {
    const settings = {
      ...{ prompt: "a dog", negativePrompt: "blue", seed: 5, steps: 9, guidanceScale: 3, sampler: "euler" },
      ...{ width: 64, height: 32, model: "icons.safetensors", adapters: [{ name: "INKS", scale: 0.4 }] },
    };
    const { form: filled, notes } = withSettings(
      { ...EMPTY_FORM, hasGrid: true },
      { format: "fera", settings, others: [] },
      choices,
    );
    expect(notes).toEqual([]);
    expect(filled).toEqual({
      ...EMPTY_FORM,
      ...{ prompt: "a dog", negativePrompt: "blue", seed: "5", isSeedNew: false, steps: "9", guidanceScale: "3" },
      ...{ sampler: "euler", width: "64", height: "32", model: "/models/icons" },
      adapters: { "/runs/a/inks.safetensors": 0.4 },
    });
  });

  it("choose no adapter where several have the name, and find one by its run", () => {
    const of = (name: string) => {
      const adapters = ["one", "two"].map((run) => ({ id: `/runs/${run}/adapter.safetensors`, label: run, run }));
      const settings = { prompt: "x", model: "icons", adapters: [{ name, scale: 0.5 }] };
      return withSettings(form, { format: "fera", settings, others: [] }, { ...choices, adapters });
    };
    expect(of("two.safetensors").form.adapters).toEqual({ "/runs/two/adapter.safetensors": 0.5 });
    expect(of("adapter.safetensors").form.adapters).toEqual({});
    expect(of("adapter.safetensors").notes).toEqual([expect.stringContaining("2 adapters here")]);
  });

  it("that are not to be had here are told", () => {
    const settings = {
      ...{ prompt: "x", model: "sdxl", sampler: "heun", scheduleType: "Karras", clipSkip: 1, strength: 0.5 },
      ...{ adapters: [{ name: "film", scale: 1 }], batch: { size: 4, position: 1 } },
    };
    const { form: filled, notes } = withSettings(
      form,
      { format: "a1111", settings, others: ["Hires upscale: 2"] },
      choices,
    );
    expect(filled).toMatchObject({ model: "/models/icons", sampler: "", adapters: {}, seed: "1", steps: "25" });
    expect(notes).toEqual([
      expect.stringContaining("model “sdxl”, which is not here"),
      expect.stringContaining("sampler “heun” is not known"),
      expect.stringContaining("“Karras”"),
      expect.stringContaining("adapter “film” is not here for this model"),
      expect.stringContaining("skips 1 layers"),
      expect.stringContaining("began from an image"),
      expect.stringContaining("number 2 of 4"),
      "Not taken over: Hires upscale: 2.",
    ]);
  });
});

describe("a picture of a grid", () => {
  const request = {
    ...readForm({ ...form, adapters: { "/files/any.safetensors": 1 } }, choices).request!,
    grid: {
      x: { option: "adapterScale" as const, values: [0, 0.5] },
      y: { option: "seed" as const, values: [7, 8] },
    },
  };
  const image: DrawnImage = {
    ...{ id: "1", x: 1, y: 1, withoutAdapters: false, width: 64, height: 32, seed: 8, seconds: 1.25, routes: [] },
  };

  it("was asked for with what the grid had there", () => {
    expect(requestOf(request, image)).toMatchObject({
      seed: 8,
      adapters: [{ id: "/files/any.safetensors", scale: 0.5 }],
    });
    expect(requestOf(request, { ...image, withoutAdapters: true }).adapters).toEqual([]);
    expect(settingsLine(request, image, choices.adapters)).toBe(
      "seed 8, 25 steps, guidance 7.5, the model's sampler, 64×32, any at 0.5, 1.3 s",
    );
  });

  it("gives a form that asks for it again", () => {
    const again = readForm(formOf(EMPTY_FORM, request, image), choices).request;
    expect(again).toEqual({ ...requestOf(request, image), width: 64, height: 32 });
  });
});
