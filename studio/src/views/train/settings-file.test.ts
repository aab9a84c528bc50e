import { describe, expect, it } from "vitest";
import { describeOptions } from "../../../../src/studio/option-descriptions.js";
import { readSettings, writeSettings } from "./settings-file.js";

const options = describeOptions();

describe("settings in a file", () => {
  it("are read as they were written", () => {
    const settings = { model: "m", data: ["d"], steps: 5, validationPrompts: ['a "dog"', "</script>"] };
    expect(readSettings(writeSettings(settings), options)).toEqual({ settings, leftOut: [] });
  });

  it("tell what the form has no place for, and pass over the version of run.json", () => {
    const text = JSON.stringify({
      fera: "0.1.0",
      output: "runs/a",
      followLinks: false,
      stepz: 3,
      rank: 4,
      data: "d",
      seed: null,
    });
    expect(readSettings(text, options)).toEqual({ settings: { rank: 4, data: ["d"] }, leftOut: ["output", "stepz"] });
  });

  it("must be a JSON object", () => {
    expect(() => readSettings("steps: 5", options)).toThrow(/no JSON/);
    expect(() => readSettings("[1]", options)).toThrow(/JSON object/);
  });
});
