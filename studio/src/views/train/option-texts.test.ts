import { describe, expect, it } from "vitest";
import { describeOptions } from "../../../../src/studio/option-descriptions.js";
import type { OptionDescription } from "../../../../src/studio/protocol.js";
import { formatValue, hintOf, isUsual, labelOf, optionOfProblem, parseValue, searchOptions } from "./option-texts.js";

const options = describeOptions();
const named = (name: string): OptionDescription => options.find((option) => option.name === name)!;

describe("options in the form", () => {
  it("are called in words, all by different ones", () => {
    expect(labelOf(named("learningRate"))).toBe("Learning rate");
    expect(labelOf(named("textEncoderLr"))).toBe("Text encoder learning rate");
    expect(new Set(options.map(labelOf)).size).toBe(options.length);
  });

  it("say their default once", () => {
    expect(hintOf(named("rank"))).toContain("By default 4.");
    expect(hintOf(named("learningRate")).match(/by default/gi)).toHaveLength(1);
    for (const option of options) expect(hintOf(option)).not.toContain("(repeatable)");
  });

  it("have texts that are read back as the values they stand for", () => {
    for (const option of options.filter(({ default: usual }) => usual !== undefined)) {
      if (option.kind === "switch") continue;
      expect(parseValue(option, formatValue(option.default)), option.name).toEqual(option.default);
    }
  });

  it("keep what is no number as it was typed, for the check to refuse", () => {
    expect(parseValue(named("steps"), "many")).toBe("many");
    expect(parseValue(named("steps"), "1e3")).toBe(1000);
    expect(parseValue(named("steps"), " ")).toBeUndefined();
    expect(parseValue(named("steps"), "Infinity")).toBe("Infinity");
  });

  it("take a line of a list as one item, commas and all", () => {
    expect(parseValue(named("validationPrompts"), "a dog, big\n\n a cat ")).toEqual(["a dog, big", "a cat"]);
    expect(parseValue(named("validationPrompts"), "\n")).toBeUndefined();
  });

  it("know what would be taken without them", () => {
    expect(isUsual(named("rank"), 4)).toBe(true);
    expect(isUsual(named("rank"), 9)).toBe(false);
    expect(isUsual(named("bucket"), false)).toBe(true);
    expect(isUsual(named("targetModules"), [...(named("targetModules").default as string[])])).toBe(true);
  });

  it("tell which kinds of adapter have them", () => {
    expect(named("numExperts").adapters).toEqual(["fera"]);
    expect(named("useRslora").adapters).toEqual(["lora", "dora"]);
    expect(named("rank").adapters).toBeUndefined();
    expect(named("steps").adapters).toBeUndefined();
  });

  it("are found by name, flag and help", () => {
    const found = (text: string) => searchOptions(options, text).map(({ name }) => name);
    expect(found("weightDecay")).toEqual(["weightDecay"]);
    expect(found("--weight-decay")).toEqual(["weightDecay"]);
    expect(found("mirror images")).toEqual(["flip"]);
    expect(found("")).toHaveLength(options.length);
  });
});

describe("optionOfProblem", () => {
  it("takes the option that is named, or the first flag of the sentence", () => {
    expect(optionOfProblem({ option: "rank", message: "" }, options)).toBe("rank");
    const message = "--warmup must not exceed --steps; got 5 and 3.";
    expect(optionOfProblem({ message }, options)).toBe("warmup");
    expect(optionOfProblem({ message: "There is no data." }, options)).toBeUndefined();
  });
});
