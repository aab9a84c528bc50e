import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { singleFileNames } from "./single-file.js";
import { NameTable } from "./single-file-names.js";

interface Golden {
  config: Record<string, unknown>;
  /** Checkpoint name and diffusers name, as diffusers' own converters pair them. */
  names: [string, string][];
}

const golden = JSON.parse(readFileSync("test/reference/single-file/names.json", "utf8")) as Record<string, Golden>;

describe("names of single-file checkpoints", () => {
  it.each([
    ["unet sd15", "unet"],
    ["unet sdxl", "unet"],
    ["vae sd15", "vae"],
    ["openclip", "text_encoder_2"],
  ] as const)("of the %s are diffusers', both ways", (key, component) => {
    const { config, names } = golden[key]!;
    const table = singleFileNames(component, config);
    const plain = names.filter(([old]) => !old.includes(".in_proj_"));
    expect(plain.map(([old]) => [old, table.toDiffusers(old)])).toEqual(plain);
    expect(plain.map(([, name]) => [table.toCheckpoint(name), name])).toEqual(plain);
  });

  it("that no module has are unknown", () => {
    const table = singleFileNames("unet", golden["unet sd15"]!.config);
    for (const name of [
      "input_blocks.1.0.in_layers.7.weight",
      "input_blocks.12.0.in_layers.0.weight",
      "input_blocks.10",
      "",
    ]) {
      expect(table.toDiffusers(name)).toBeUndefined();
    }
  });

  it("stand in a table once", () => {
    expect(
      () =>
        new NameTable([
          ["a", "b"],
          ["c", "b"],
        ]),
    ).toThrow(/twice/);
  });
});
