// What the original code of flow transformers calls their modules, beside diffusers' names, both ways. The original code has
// some layers in one whose rows are several of diffusers'. Of tables of UNets, autoencoders and text encoders see models/single-file.

/** Transformers that predict a flow, by their class in diffusers. */
export type FlowFamily =
  | "SD3Transformer2DModel"
  | "FluxTransformer2DModel"
  | "Flux2Transformer2DModel"
  | "ZImageTransformer2DModel";

/** One module of the original code. */
export interface OriginalModule {
  original: string;
  /** diffusers' modules, whose rows stand one below the other in the original's. */
  parts: readonly string[];
  /** How many rows each has, relative to the others; equal by default. */
  shares: readonly number[];
  /**
   * Scale and shift stand in the other order: always, or in SD3's `lastBlock`, whose text goes on to no other block and has
   * only these two.
   */
  swapped?: "always" | "lastBlock" | undefined;
}

type Row = readonly [original: string, parts: string | readonly string[], more?: Partial<OriginalModule>];

const three = (prefix: string, names: readonly string[]): string[] => names.map((name) => `${prefix}.${name}`);
const OWN = ["to_q", "to_k", "to_v"];
const ADDED = ["add_q_proj", "add_k_proj", "add_v_proj"];

/** `#` is a block's number. */
const IN_DOUBLE_BLOCKS: readonly Row[] = [
  ["double_blocks.#.img_attn.qkv", three("transformer_blocks.#.attn", OWN)],
  ["double_blocks.#.txt_attn.qkv", three("transformer_blocks.#.attn", ADDED)],
  ["double_blocks.#.img_attn.proj", "transformer_blocks.#.attn.to_out.0"],
  ["double_blocks.#.txt_attn.proj", "transformer_blocks.#.attn.to_add_out"],
  ["double_blocks.#.img_attn.norm.query_norm", "transformer_blocks.#.attn.norm_q"],
  ["double_blocks.#.img_attn.norm.key_norm", "transformer_blocks.#.attn.norm_k"],
  ["double_blocks.#.txt_attn.norm.query_norm", "transformer_blocks.#.attn.norm_added_q"],
  ["double_blocks.#.txt_attn.norm.key_norm", "transformer_blocks.#.attn.norm_added_k"],
  ["single_blocks.#.norm.query_norm", "single_transformer_blocks.#.attn.norm_q"],
  ["single_blocks.#.norm.key_norm", "single_transformer_blocks.#.attn.norm_k"],
];

/** A network of two layers. */
const pair = (original: string, [a, b]: readonly [string, string], path: string): Row[] => [
  [`${original}.${a}`, `${path}.linear_1`],
  [`${original}.${b}`, `${path}.linear_2`],
];
const LAYERS = ["in_layer", "out_layer"] as const;
const NUMBERS = ["mlp.0", "mlp.2"] as const;
const FINAL: readonly Row[] = [
  ["final_layer.linear", "proj_out"],
  ["final_layer.adaLN_modulation.1", "norm_out.linear", { swapped: "always" }],
];

const TABLES: Readonly<Record<FlowFamily, readonly Row[]>> = {
  FluxTransformer2DModel: [
    ...IN_DOUBLE_BLOCKS,
    ["double_blocks.#.img_mod.lin", "transformer_blocks.#.norm1.linear"],
    ["double_blocks.#.txt_mod.lin", "transformer_blocks.#.norm1_context.linear"],
    ["double_blocks.#.img_mlp.0", "transformer_blocks.#.ff.net.0.proj"],
    ["double_blocks.#.img_mlp.2", "transformer_blocks.#.ff.net.2"],
    ["double_blocks.#.txt_mlp.0", "transformer_blocks.#.ff_context.net.0.proj"],
    ["double_blocks.#.txt_mlp.2", "transformer_blocks.#.ff_context.net.2"],
    ["single_blocks.#.modulation.lin", "single_transformer_blocks.#.norm.linear"],
    [
      "single_blocks.#.linear1",
      [...three("single_transformer_blocks.#.attn", OWN), "single_transformer_blocks.#.proj_mlp"],
      // The feed-forward is four times as wide.
      { shares: [1, 1, 1, 4] },
    ],
    ["single_blocks.#.linear2", "single_transformer_blocks.#.proj_out"],
    ["img_in", "x_embedder"],
    ["txt_in", "context_embedder"],
    ...pair("time_in", LAYERS, "time_text_embed.timestep_embedder"),
    ...pair("vector_in", LAYERS, "time_text_embed.text_embedder"),
    ...pair("guidance_in", LAYERS, "time_text_embed.guidance_embedder"),
    ...FINAL,
  ],
  Flux2Transformer2DModel: [
    ...IN_DOUBLE_BLOCKS,
    ["double_blocks.#.img_mlp.0", "transformer_blocks.#.ff.linear_in"],
    ["double_blocks.#.img_mlp.2", "transformer_blocks.#.ff.linear_out"],
    ["double_blocks.#.txt_mlp.0", "transformer_blocks.#.ff_context.linear_in"],
    ["double_blocks.#.txt_mlp.2", "transformer_blocks.#.ff_context.linear_out"],
    ["single_blocks.#.linear1", "single_transformer_blocks.#.attn.to_qkv_mlp_proj"],
    ["single_blocks.#.linear2", "single_transformer_blocks.#.attn.to_out"],
    ["img_in", "x_embedder"],
    ["txt_in", "context_embedder"],
    ...pair("time_in", LAYERS, "time_guidance_embed.timestep_embedder"),
    ...pair("guidance_in", LAYERS, "time_guidance_embed.guidance_embedder"),
    ["double_stream_modulation_img.lin", "double_stream_modulation_img.linear"],
    ["double_stream_modulation_txt.lin", "double_stream_modulation_txt.linear"],
    ["single_stream_modulation.lin", "single_stream_modulation.linear"],
    ...FINAL,
  ],
  SD3Transformer2DModel: [
    ["joint_blocks.#.x_block.attn.qkv", three("transformer_blocks.#.attn", OWN)],
    ["joint_blocks.#.x_block.attn.proj", "transformer_blocks.#.attn.to_out.0"],
    ["joint_blocks.#.x_block.attn.ln_q", "transformer_blocks.#.attn.norm_q"],
    ["joint_blocks.#.x_block.attn.ln_k", "transformer_blocks.#.attn.norm_k"],
    ["joint_blocks.#.x_block.attn2.qkv", three("transformer_blocks.#.attn2", OWN)],
    ["joint_blocks.#.x_block.attn2.proj", "transformer_blocks.#.attn2.to_out.0"],
    ["joint_blocks.#.x_block.attn2.ln_q", "transformer_blocks.#.attn2.norm_q"],
    ["joint_blocks.#.x_block.attn2.ln_k", "transformer_blocks.#.attn2.norm_k"],
    ["joint_blocks.#.x_block.mlp.fc1", "transformer_blocks.#.ff.net.0.proj"],
    ["joint_blocks.#.x_block.mlp.fc2", "transformer_blocks.#.ff.net.2"],
    ["joint_blocks.#.x_block.adaLN_modulation.1", "transformer_blocks.#.norm1.linear"],
    ["joint_blocks.#.context_block.attn.qkv", three("transformer_blocks.#.attn", ADDED)],
    ["joint_blocks.#.context_block.attn.proj", "transformer_blocks.#.attn.to_add_out"],
    ["joint_blocks.#.context_block.attn.ln_q", "transformer_blocks.#.attn.norm_added_q"],
    ["joint_blocks.#.context_block.attn.ln_k", "transformer_blocks.#.attn.norm_added_k"],
    ["joint_blocks.#.context_block.mlp.fc1", "transformer_blocks.#.ff_context.net.0.proj"],
    ["joint_blocks.#.context_block.mlp.fc2", "transformer_blocks.#.ff_context.net.2"],
    [
      "joint_blocks.#.context_block.adaLN_modulation.1",
      "transformer_blocks.#.norm1_context.linear",
      { swapped: "lastBlock" },
    ],
    ["x_embedder.proj", "pos_embed.proj"],
    ["pos_embed", "pos_embed.pos_embed"],
    ["context_embedder", "context_embedder"],
    ...pair("t_embedder", NUMBERS, "time_text_embed.timestep_embedder"),
    ...pair("y_embedder", NUMBERS, "time_text_embed.text_embedder"),
    ...FINAL,
  ],
  // Everything else is called the same.
  ZImageTransformer2DModel: [
    ...["layers", "noise_refiner", "context_refiner"].flatMap((blocks): Row[] => [
      [`${blocks}.#.attention.qkv`, three(`${blocks}.#.attention`, OWN)],
      [`${blocks}.#.attention.out`, `${blocks}.#.attention.to_out.0`],
      [`${blocks}.#.attention.q_norm`, `${blocks}.#.attention.norm_q`],
      [`${blocks}.#.attention.k_norm`, `${blocks}.#.attention.norm_k`],
    ]),
    ["x_embedder", "all_x_embedder.2-1"],
    ["final_layer.linear", "all_final_layer.2-1.linear"],
    ["final_layer.adaLN_modulation.1", "all_final_layer.2-1.adaLN_modulation.1"],
  ],
};

const BLOCK =
  /^((?:single_)?transformer_blocks|(?:double|single|joint)_blocks|layers|noise_refiner|context_refiner)\.(\d+)\./;

/** The names of one family. */
export class FlowNames {
  readonly #byOriginal = new Map<string, OriginalModule>();
  readonly #byPart = new Map<string, OriginalModule>();

  constructor(family: FlowFamily) {
    for (const [original, given, more] of TABLES[family]) {
      const parts = typeof given === "string" ? [given] : given;
      const module = { original, parts, shares: parts.map(() => 1), ...more };
      this.#byOriginal.set(original, module);
      for (const part of parts) this.#byPart.set(part, module);
    }
  }

  /** The module of the original code by its own name; undefined where the table has none. */
  byOriginal(name: string): OriginalModule | undefined {
    return found(this.#byOriginal, name);
  }

  /** The module of the original code that diffusers' one is, or is a part of. */
  byPart(path: string): OriginalModule | undefined {
    return found(this.#byPart, path);
  }
}

function found(table: ReadonlyMap<string, OriginalModule>, name: string): OriginalModule | undefined {
  const number = BLOCK.exec(name)?.[2];
  if (number === undefined) return table.get(name);
  const module = table.get(name.replace(BLOCK, "$1.#."));
  if (!module) return undefined;
  const numbered = (each: string) => each.replace("#", number);
  return { ...module, original: numbered(module.original), parts: module.parts.map(numbered) };
}
