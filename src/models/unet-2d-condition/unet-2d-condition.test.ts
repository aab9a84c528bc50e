import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import { readSafetensors } from "../../storage/index.js";
import "../../runtime/node.js";
import { Generator } from "../../tensor/random.js";
import "../../storage/node.js";
import { UNet2DConditionModel, type UNetInputs } from "./unet-2d-condition.js";
import { parseUNetConfig } from "./unet-config.js";

const OUTPUT_TOLERANCE = 2e-4;
const configOf = (name: string) => JSON.parse(readFileSync(`test/reference/${name}/unet/config.json`, "utf8"));

async function referenceInputs(name: string): Promise<{ inputs: UNetInputs; expected: Float32Array }> {
  const { tensors } = await readSafetensors(`test/reference/${name}/expected.safetensors`);
  const textEmbeds = tensors.get("text_embeds");
  return {
    inputs: {
      latents: tensors.get("latents")!,
      timesteps: tensors.get("timesteps")!,
      encoderHiddenStates: tensors.get("encoder_hidden_states")!,
      ...(textEmbeds ? { addedConditions: { textEmbeds, timeIds: tensors.get("time_ids")! } } : {}),
    },
    expected: tensors.get("base_output")!.data as Float32Array,
  };
}

describe("base output agrees with diffusers", () => {
  for (const name of ["unet-sd15", "unet-sd21", "unet-sdxl"]) {
    it(name, async () => {
      const model = await UNet2DConditionModel.fromPretrained(`test/reference/${name}`, { subfolder: "unet" });
      const { inputs, expected } = await referenceInputs(name);
      const output = await model.predict(inputs);
      expect(relativeError(output.data, expected)).toBeLessThan(OUTPUT_TOLERANCE);
      await model.release();
    });
  }
});

describe("what the configuration refuses", () => {
  it("names an unknown option", () => {
    const config = { ...configOf("unet-sd15"), brand_new_option: 3 };
    expect(() => parseUNetConfig(config, "unet/config.json")).toThrow(/unsupported option brand_new_option=3/);
  });

  it("names norm_num_groups that do not divide the channels", () => {
    const config = { ...configOf("unet-sd15"), norm_num_groups: 7 };
    expect(() => parseUNetConfig(config, "unet/config.json")).toThrow(/norm_num_groups=7 must divide/);
  });
});

describe("inputs", () => {
  it("of the wrong width are refused with the option that says it", async () => {
    const model = UNet2DConditionModel.fromConfig(configOf("unet-sd15"), new Generator(0));
    const { inputs } = await referenceInputs("unet-sd21");
    await expect(model.predict(inputs)).rejects.toThrow(/cross_attention_dim/);
  });

  it("without SDXL's conditions are refused", async () => {
    const model = UNet2DConditionModel.fromConfig(configOf("unet-sdxl"), new Generator(0));
    const { inputs } = await referenceInputs("unet-sdxl");
    await expect(model.predict({ ...inputs, addedConditions: undefined })).rejects.toThrow(/needs addedConditions/);
  });
});
