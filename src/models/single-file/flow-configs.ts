// The configuration of a flow transformer, told from the shapes of an original checkpoint. What shapes do not tell (rotary axes, the
// size of images) is that of the published models.

import { ConfigError } from "../../errors.js";
import type { FlowFamily } from "../../storage/flow-names.js";

/** The shape of a tensor by its original name, without a prefix; undefined where there is none. */
type Shapes = ReadonlyMap<string, readonly number[]>;

/** Features of each head in all published models. */
const PUBLISHED_HEAD = 128;
/** Of Stable Diffusion 3, which has as many heads as blocks. */
const SD3_HEAD = 64;

/**
 * diffusers' configuration.
 *
 * @throws {ConfigError} If the shapes are those of no published model.
 */
export function flowConfigOf(family: FlowFamily, shapes: Shapes, path: string): Record<string, unknown> {
  return { _class_name: family, ...READERS[family](new ShapeReader(shapes, path)) };
}

const READERS: Readonly<Record<FlowFamily, (of: ShapeReader) => Record<string, unknown>>> = {
  FluxTransformer2DModel: (of) => ({
    ...fluxConfig(of),
    pooled_projection_dim: of.size("vector_in.in_layer.weight", 1),
    axes_dims_rope: [16, 56, 56],
  }),
  Flux2Transformer2DModel: (of) => {
    const width = of.size("img_in.weight", 0);
    const hidden =
      of.sizeIfAny("double_blocks.0.img_mlp.2.weight", 1) ?? of.size("single_blocks.0.linear2.weight", 1) - width;
    return {
      ...fluxConfig(of),
      timestep_guidance_channels: of.size("time_in.in_layer.weight", 1),
      mlp_ratio: hidden / width,
      axes_dims_rope: [32, 32, 32, 32],
    };
  },
  SD3Transformer2DModel: (of) => {
    const patches = (axis: number) => of.size("x_embedder.proj.weight", axis);
    const [width, channels, patch] = [patches(0), patches(1), patches(2)];
    const normed = of.sizeIfAny("joint_blocks.0.x_block.attn.ln_q.weight", 0);
    const layers = of.count("joint_blocks");
    return {
      sample_size: 128,
      patch_size: patch,
      in_channels: channels,
      out_channels: of.size("final_layer.linear.weight", 0) / patch ** 2,
      num_layers: layers,
      ...of.heads(width, normed ?? SD3_HEAD, ["num_attention_heads", "attention_head_dim"]),
      joint_attention_dim: of.size("context_embedder.weight", 1),
      caption_projection_dim: of.size("context_embedder.weight", 0),
      pooled_projection_dim: of.size("y_embedder.mlp.0.weight", 1),
      pos_embed_max_size: Math.round(Math.sqrt(of.size("pos_embed", 1))),
      dual_attention_layers: Array.from({ length: layers }, (_, i) => i).filter((i) =>
        of.has(`joint_blocks.${i}.x_block.attn2.qkv.weight`),
      ),
      qk_norm: normed === undefined ? null : "rms_norm",
    };
  },
  ZImageTransformer2DModel: (of) => {
    const width = of.size("x_embedder.weight", 0);
    const normed = of.sizeIfAny("layers.0.attention.q_norm.weight", 0);
    of.expectHead(normed ?? PUBLISHED_HEAD);
    const { heads } = of.heads(width, normed ?? PUBLISHED_HEAD, ["heads", "each"]);
    return {
      all_patch_size: [2],
      all_f_patch_size: [1],
      in_channels: of.size("x_embedder.weight", 1) / 4,
      dim: width,
      n_layers: of.count("layers"),
      n_refiner_layers: of.count("noise_refiner"),
      n_heads: heads,
      n_kv_heads: heads,
      qk_norm: normed !== undefined,
      cap_feat_dim: of.size("cap_embedder.1.weight", 1),
      axes_dims: [32, 48, 48],
      axes_lens: [1536, 512, 512],
    };
  },
};

/** What FLUX.1 and FLUX.2 have in common. */
function fluxConfig(of: ShapeReader): Record<string, unknown> {
  const norms = ["double_blocks.0.img_attn.norm.query_norm.scale", "single_blocks.0.norm.query_norm.scale"];
  const head = norms.map((name) => of.sizeIfAny(name, 0)).find((size) => size !== undefined) ?? PUBLISHED_HEAD;
  of.expectHead(head);
  return {
    patch_size: 1,
    in_channels: of.size("img_in.weight", 1),
    out_channels: of.size("final_layer.linear.weight", 0),
    num_layers: of.count("double_blocks"),
    num_single_layers: of.count("single_blocks"),
    ...of.heads(of.size("img_in.weight", 0), head, ["num_attention_heads", "attention_head_dim"]),
    joint_attention_dim: of.size("txt_in.weight", 1),
    guidance_embeds: of.has("guidance_in.in_layer.weight"),
  };
}

class ShapeReader {
  constructor(
    private readonly shapes: Shapes,
    private readonly path: string,
  ) {}

  has(name: string): boolean {
    return this.shapes.has(name);
  }

  sizeIfAny(name: string, axis: number): number | undefined {
    return this.shapes.get(name)?.[axis];
  }

  size(name: string, axis: number): number {
    const found = this.sizeIfAny(name, axis);
    if (found === undefined) throw this.#unknown(`there is no "${name}" with an axis ${axis}`);
    return found;
  }

  /** Blocks of that name. */
  count(blocks: string): number {
    const numbers = [...this.shapes.keys()].filter((name) => name.startsWith(`${blocks}.`)).map((n) => n.split(".")[1]);
    return new Set(numbers).size;
  }

  heads<Key extends string>(width: number, each: number, keys: readonly [Key, Key]): Record<Key, number> {
    if (width % each !== 0) throw this.#unknown(`a width of ${width} is no multiple of heads of ${each}`);
    return { [keys[0]]: width / each, [keys[1]]: each } as Record<Key, number>;
  }

  /** How a head is divided among the axes of positions is in no shape. */
  expectHead(size: number): void {
    if (size !== PUBLISHED_HEAD) throw this.#unknown(`its heads have ${size} features, those of published models 128`);
  }

  #unknown(problem: string): ConfigError {
    return new ConfigError(
      `${this.path}: its configuration cannot be told from its tensors: ${problem}. ` +
        "Give `config`: the folder or hub id of the pipeline that it was made from, in diffusers' layout.",
    );
  }
}
