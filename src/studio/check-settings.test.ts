import { describe, expect, it } from "vitest";
import { TRAIN_OPTIONS } from "../training/options/train-options.js";
import { checkValues } from "./check-settings.js";
import { describeOptions, NOT_IN_THE_FORM } from "./option-descriptions.js";
import { errorIn } from "./run-process.js";
import { commandOf } from "./training-settings.js";

const given = { model: "embedded", data: ["/pictures"] };

describe("the form's options", () => {
  it("are those of fera train, each in a group, with its range", () => {
    const options = describeOptions();
    expect(new Set(options.map(({ name }) => name))).toEqual(
      new Set(Object.keys(TRAIN_OPTIONS).filter((name) => !NOT_IN_THE_FORM.has(name))),
    );
    expect(options.filter(({ group }) => group === "Other")).toEqual([]);
    expect(options.filter(({ isMain }) => isMain).map(({ name }) => name)).toContain("learningRate");
    const of = (name: string) => options.find((option) => option.name === name);
    expect(of("rank")).toMatchObject({ flag: "--rank", kind: "integer", minimum: 1, isMain: true, group: "Adapter" });
    expect(of("captionDropout")).toMatchObject({ kind: "number", minimum: 0, maximum: 1, default: 0.1 });
    expect(of("adapter")).toMatchObject({ kind: "choice", default: "fera", choices: expect.arrayContaining(["lora"]) });
    expect(of("bucket")).toMatchObject({ kind: "switch", default: false });
    expect(of("validationPrompts")).toMatchObject({ kind: "list" });
    expect(of("seed")!.maximum).toBeUndefined();
  });
});

describe("a form's settings", () => {
  it("have defaults for what is left out or emptied", () => {
    const { problems, values, given: kept } = checkValues({ ...given, rank: 8, alpha: null });
    expect(problems).toEqual([]);
    expect(values).toMatchObject({ rank: 8, batchSize: 4, adapter: "fera" });
    expect(kept).toEqual({ ...given, rank: 8 });
  });

  it.each([
    ["rank", { rank: 0 }, /--rank must be an integer of 1 or more; got 0/],
    ["model", { model: undefined }, /--model is required/],
    ["feraRank", { feraRank: 2 }, /no option "feraRank"/],
    ["output", { output: "/etc" }, /--output cannot be set in the studio/],
    ["validateEvery", { validateEvery: 3 }, /--validate-every needs --validation-prompts/],
    ["adapterName", { adapterName: "../x.safetensors" }, /--adapter-name must be a plain name/],
    ["routerTau", { adapter: "lora", routerTau: 0.5 }, /--router-tau.*has no such option/],
  ])("name the option that is wrong: %s", (option, change, message) => {
    const { problems } = checkValues({ ...given, ...change });
    expect(problems).toEqual([{ option, message: expect.stringMatching(message) }]);
  });

  it("are a command that can be typed, without what has its default", () => {
    const config = {
      ...given,
      data: ["/my pictures", "/b=3"],
      rank: 4,
      steps: 7,
      flip: true,
      validationPrompts: ["it's", "b"],
    };
    expect(commandOf({ ...config, batchSize: 4 }, "runs/x")).toBe(
      "npx fera train --model embedded --data '/my pictures' --data /b=3 --output runs/x --steps 7 --flip " +
        "--validation-prompts 'it'\\''s' --validation-prompts b",
    );
  });
});

describe("why a training failed", () => {
  it("is its message, without the program's name, its usage and what came before", () => {
    expect(errorIn("loading x\nfera: step 3: no space left; free some.\nIt is kept.\n")).toBe(
      "step 3: no space left; free some.\nIt is kept.",
    );
    expect(errorIn("fera train: --rank is wrong.\nUsage: fera train …\n")).toBe("--rank is wrong.");
    expect(errorIn("fera: unexpected error: boom\nRun it again with --debug for the stack.\n")).toBe(
      "unexpected error: boom",
    );
    expect(errorIn("Segmentation fault\n")).toBe("Segmentation fault");
    expect(errorIn("")).toBeUndefined();
  });
});
