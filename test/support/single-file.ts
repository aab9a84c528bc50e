// A pipeline's folder in diffusers' layout as a single-file checkpoint under its original names.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { singleFileNames } from "../../src/models/single-file/single-file.js";
import { readSafetensors } from "../../src/storage/index.js";
import { Tensor } from "../../src/tensor/tensor.js";

/** Which part goes where. */
export type SingleFileLayout = Partial<
  Record<"unet" | "vae" | "text_encoder" | "text_encoder_2", { prefix: string; openClip?: boolean }>
>;

export const SD1_LAYOUT: SingleFileLayout = {
  unet: { prefix: "model.diffusion_model." },
  vae: { prefix: "first_stage_model." },
  text_encoder: { prefix: "cond_stage_model.transformer." },
};

export const SD2_LAYOUT: SingleFileLayout = {
  ...SD1_LAYOUT,
  text_encoder: { prefix: "cond_stage_model.model.", openClip: true },
};

export const SDXL_LAYOUT: SingleFileLayout = {
  ...SD1_LAYOUT,
  text_encoder: { prefix: "conditioner.embedders.0.transformer." },
  text_encoder_2: { prefix: "conditioner.embedders.1.model.", openClip: true },
};

type Floats = Map<string, Tensor<"float32">>;

/** The checkpoint's tensors. */
export async function singleFileOf(dir: string, layout: SingleFileLayout): Promise<Floats> {
  const result: Floats = new Map();
  for (const [component, { prefix, openClip = false }] of Object.entries(layout)) {
    const config = JSON.parse(readFileSync(join(dir, component, "config.json"), "utf8"));
    const weights = await weightsOf(dir, component);
    const table = singleFileNames(component as keyof SingleFileLayout, config, { openClip });
    const put = (old: string, value: Tensor<"float32">) => result.set(prefix + old, value);
    for (const [name, value] of weights) {
      const projection = /^(text_model\.encoder\.layers\.(\d+)\.self_attn)\.([qkv])_proj\.(weight|bias)$/.exec(name);
      if (openClip && projection) {
        const [, module, layer, which, kind] = projection;
        if (which !== "q") continue;
        const parts = ["q", "k", "v"].map((part) => weights.get(`${module}.${part}_proj.${kind}`)!);
        put(`transformer.resblocks.${layer}.attn.in_proj_${kind}`, joined(parts));
      } else if (openClip && name === "text_projection.weight") {
        put("text_projection", transposed(value));
      } else {
        const old = table.toCheckpoint(name);
        if (old === undefined) throw new Error(`${component} ${name} has no old name`);
        // The autoencoder's attention is made of 1×1 convolutions there.
        put(old, /\.attn_1\.(q|k|v|proj_out)\.weight$/.test(old) ? value.reshape([...value.shape, 1, 1]) : value);
      }
    }
  }
  return result;
}

/** A part's weights under the names that models ask for. */
export async function weightsOf(dir: string, component: string): Promise<Floats> {
  const file = component.startsWith("text_encoder") ? "model" : "diffusion_pytorch_model";
  const { tensors } = await readSafetensors(join(dir, component, `${file}.safetensors`));
  const named = [...tensors].filter(([name]) => !name.endsWith("position_ids")) as [string, Tensor<"float32">][];
  // transformers 5 leaves the prefix out.
  const bare = component === "text_encoder" && tensors.has("final_layer_norm.weight");
  return new Map(named.map(([name, value]) => [bare ? `text_model.${name}` : name, value]));
}

function joined(parts: readonly Tensor<"float32">[]): Tensor<"float32"> {
  const [rows, ...rest] = parts[0]!.shape;
  const data = new Float32Array(parts.flatMap((part) => [...part.data]));
  return new Tensor("float32", [rows! * parts.length, ...rest], data);
}

function transposed(value: Tensor<"float32">): Tensor<"float32"> {
  const [rows, columns] = value.shape as [number, number];
  const data = Float32Array.from(
    { length: value.size },
    (_, i) => value.data[(i % rows) * columns + Math.floor(i / rows)]!,
  );
  return new Tensor("float32", [columns, rows], data);
}
