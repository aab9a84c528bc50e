import { describe, expect, it } from "vitest";
import { type LoraFormat, loraFormatOf } from "./lora-format.js";

const LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
const FLAT = LAYER.replaceAll(".", "_");
const ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1";

/** Shapes of a LoRA of rank 4 under the given names. */
function formatOf(names: readonly string[], metadata: Record<string, string> = {}): LoraFormat | undefined {
  return loraFormatOf(
    new Map(
      names.map((name) => [name, { shape: /alpha$/.test(name) ? [] : /down|lora_A/.test(name) ? [4, 320] : [320, 4] }]),
    ),
    metadata,
  );
}

describe("the names of", () => {
  it.each([
    [
      "kohya",
      [`lora_unet_${FLAT}.lora_down.weight`, `lora_unet_${FLAT}.lora_up.weight`, `lora_unet_${FLAT}.alpha`],
      FLAT,
    ],
    ["kohya", [`lora_unet_unet_${FLAT}.lora_down.weight`, `lora_unet_unet_${FLAT}.lora_up.weight`], FLAT],
    ["kohya", [`lora_unet_unet_${FLAT}_lora_down.weight`, `lora_unet_unet_${FLAT}_lora_up.weight`], FLAT],
    ["diffusers", [`unet.${LAYER}.lora_A.weight`, `unet.${LAYER}.lora_B.weight`], LAYER],
    ["diffusers", [`${LAYER}.lora_A.default.weight`, `${LAYER}.lora_B.default.weight`], LAYER],
    ["diffusers", [`unet.${LAYER}.lora.down.weight`, `unet.${LAYER}.lora.up.weight`], LAYER],
    ["diffusers", [`${LAYER}.lora_down.weight`, `${LAYER}.lora_up.weight`], LAYER],
    [
      "processor",
      [`${ATTENTION}.processor.to_q_lora.down.weight`, `${ATTENTION}.processor.to_q_lora.up.weight`],
      LAYER,
    ],
    ["peft", [`base_model.model.${LAYER}.lora_A.weight`, `base_model.model.${LAYER}.lora_B.weight`], LAYER],
    ["cloneofsimo", ["unet:12:down", "unet:12:up"], "12"],
  ])("%s are known: %j", (naming, names, layer) => {
    const format = formatOf(names)!;
    expect(format).toMatchObject({ naming, method: "lora", unknown: [] });
    expect(format.layers).toHaveLength(1);
    expect(format.layers[0]).toMatchObject({ part: "unet", name: layer, down: names[0], up: names[1], rank: 4 });
    expect(format.layers[0]!.tensors).toEqual(names);
  });

  it("Flux in XLabs', kohya's and diffusers' form are known", () => {
    const xlabs = ["double_blocks.0.processor.qkv_lora1.down.weight", "double_blocks.0.processor.qkv_lora1.up.weight"];
    expect(formatOf(xlabs)).toMatchObject({ naming: "xlabs", layers: [{ part: "transformer", rank: 4 }] });
    const kohya = ["lora_unet_double_blocks_0_img_attn_proj.lora_down.weight"];
    expect(formatOf(kohya)).toMatchObject({ naming: "kohya", layers: [{ part: "transformer" }] });
    const transformer = ["transformer.single_transformer_blocks.0.attn.to_q", "lora_A.weight"].join(".");
    expect(formatOf([transformer])).toMatchObject({ naming: "diffusers", layers: [{ part: "transformer" }] });
  });

  it.each([
    ["lora_te_text_model_encoder_layers_0_mlp_fc1", "text_encoder"],
    ["lora_te1_text_model_encoder_layers_0_mlp_fc1", "text_encoder"],
    ["lora_te2_text_model_encoder_layers_0_mlp_fc1", "text_encoder_2"],
    ["text_encoder.text_model.encoder.layers.0.mlp.fc1", "text_encoder"],
    ["text_encoder_2.text_model.encoder.layers.0.mlp.fc1", "text_encoder_2"],
    ["text_model.encoder.layers.0.mlp.fc1", "text_encoder"],
  ])("a text encoder's layer is told from the UNet's: %s", (layer, part) => {
    expect(formatOf([`${layer}.lora_down.weight`, `${layer}.lora_up.weight`])!.layers[0]).toMatchObject({ part });
  });

  it("diffusers' attention processors mean the first module of to_out", () => {
    const names = [`${ATTENTION}.processor.to_out_lora.down.weight`, `${ATTENTION}.processor.to_out_lora.up.weight`];
    expect(formatOf(names)!.layers[0]!.name).toBe(`${ATTENTION}.to_out.0`);
  });

  it("learned tokens are told from tensors that belong to nothing", () => {
    const format = formatOf(["<s1>", "emb", "unet:0:down", "unet:0:up"], { "<s1>": "<embed>" });
    expect(format).toMatchObject({ tokens: ["<s1>"], unknown: ["emb"] });
  });
});

describe("a LoRA's relatives", () => {
  const lora = [`lora_unet_${FLAT}.lora_down.weight`, `lora_unet_${FLAT}.lora_up.weight`];

  it.each([
    ["dora", [...lora, `lora_unet_${FLAT}.dora_scale`]],
    ["dora", [`unet.${LAYER}.lora_A.weight`, `unet.${LAYER}.lora_B.weight`, `unet.${LAYER}.lora_magnitude_vector`]],
    ["dora", [`base_model.model.${LAYER}.lora_A.weight`, `base_model.model.${LAYER}.lora_magnitude_vector.weight`]],
    ["loha", ["a", "b"].flatMap((m) => [1, 2].map((i) => `lora_unet_${FLAT}.hada_w${i}_${m}`))],
    ["lokr", [`lora_unet_${FLAT}.lokr_w1`, `lora_unet_${FLAT}.lokr_w2`, `lora_unet_${FLAT}.alpha`]],
    ["oft", [`lora_unet_${FLAT}.oft_blocks`]],
    ["full", [...lora, `lora_unet_other.diff`]],
  ])("are called by their name: %s", (method, names) => {
    expect(formatOf(names)).toMatchObject({ method, unknown: [] });
  });

  it("of a convolution keep their middle factor", () => {
    const format = formatOf([...lora, `lora_unet_${FLAT}.lora_mid.weight`])!;
    expect(format.layers[0]).toMatchObject({ method: "lora", mid: `lora_unet_${FLAT}.lora_mid.weight` });
  });
});

it("what is no LoRA is not taken for one", () => {
  expect(formatOf(["conv_in.weight", "conv_in.bias"])).toBeUndefined();
  expect(formatOf([])).toBeUndefined();
  expect(formatOf(["something.alpha"])).toBeUndefined();
  expect(formatOf(["router.net.0.weight", `base_model.${LAYER}.experts.0.lora_down.weight`])).toMatchObject({
    unknown: ["router.net.0.weight"],
  });
});
