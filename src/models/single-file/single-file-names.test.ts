import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { FileStorage } from "../../storage/file-storage.js";
import { writeSafetensors } from "../../storage/index.js";
import "../../storage/node.js";
import { zeros } from "../../tensor/tensor.js";
import { openSingleFile, singleFileNames } from "./single-file.js";
import { NameTable } from "./single-file-names.js";

interface Golden {
  config: Record<string, unknown>;
  /** Checkpoint name and diffusers name, as diffusers' own converters pair them. */
  names: [string, string][];
}

const golden = JSON.parse(readFileSync("test/reference/single-file/names.json", "utf8")) as Record<string, Golden>;

describe("the original checkpoint of a flow transformer", () => {
  it.each([
    ["double_blocks.0.img_mod.lin.weight", "FLUX.1"],
    ["model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "Stable Diffusion 3"],
    ["layers.0.adaLN_modulation.0.weight", "Z-Image"],
    ["double_stream_modulation_img.lin.weight", "FLUX.2"],
  ])("is known by its family: %s", async (name, family) => {
    const folder = await mkdtemp(join(tmpdir(), "fera-single-"));
    await writeSafetensors(join(folder, "x.safetensors"), { [name]: zeros([1]) });
    expect(await openSingleFile(new FileStorage(folder), "x.safetensors")).toMatchObject({ family });
    await rm(folder, { recursive: true });
  });
});

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
