// Which program wrote a LoRA, by the names of its tensors: every layer with its matrices, the method, and what is left over.
// Judges names and shapes; reads no values. What other programs call a layer is in lora-names.ts.

/** What is known of a tensor without its values. */
export interface TensorShape {
  readonly shape: readonly number[];
}

/**
 * Whose names they are.
 *
 * - `kohya`: `lora_unet_LAYER.lora_down.weight`, dots of the layer as underscores.
 * - `diffusers`: `unet.LAYER.lora_A.weight` or `LAYER.lora_A.weight`; older, `LAYER.lora.down.weight` and `LAYER.lora_down.weight`.
 *   ComfyUI's and ai-toolkit's `diffusion_model.LAYER.lora_A.weight` too.
 * - `processor`: diffusers' attention processors, `ATTENTION.processor.to_q_lora.down.weight`.
 * - `peft`: `base_model.model.LAYER.lora_A.weight`.
 * - `cloneofsimo`: `unet:0:down`, layers counted in the order of the modules.
 * - `xlabs`: `double_blocks.0.processor.qkv_lora1.down.weight`, for Flux.
 */
export type LoraNaming = "kohya" | "diffusers" | "processor" | "peft" | "cloneofsimo" | "xlabs";

/**
 * How the update is computed: `lora` up·down; `dora` the same with a learned magnitude per output; `loha`, `lokr`, `oft`,
 * `ia3`, `glora` and `full` (a plain difference) are LyCORIS's.
 */
export type LoraMethod = "lora" | "dora" | "loha" | "lokr" | "oft" | "ia3" | "glora" | "full";

/** The model that a layer belongs to. */
export type LoraPart = "unet" | "transformer" | "text_encoder" | "text_encoder_2" | "text_encoder_3";

/** One adapted layer; the fields name tensors of the file. */
export interface LoraLayer {
  part: LoraPart;
  /**
   * The layer in its model: diffusers' path with dots, except for `kohya` (underscores, and for SDXL the original code's
   * names) and `cloneofsimo` (a number). Of flow transformers it can be the original code's, see storage/flow-names.ts.
   */
  name: string;
  method: LoraMethod;
  /** `[rank, in]`, or of a convolution `[rank, in, kh, kw]`; only of `lora` and `dora`. */
  down?: string;
  /** `[out, rank]`, or `[out, rank, 1, 1]`. */
  up?: string;
  /** The middle factor of a convolution in Tucker's decomposition, `[rank, rank, kh, kw]`. */
  mid?: string;
  /** A scalar; the update is scaled by alpha / rank. Where it is missing, programs take the rank. */
  alpha?: string;
  /** DoRA's magnitudes. */
  magnitude?: string;
  /** A learned bias of the up projection. */
  bias?: string;
  rank?: number;
  /** The layer's own input features, where the shapes tell. */
  inFeatures?: number;
  /** Every tensor of the layer. */
  tensors: string[];
}

/** A LoRA's names, understood. */
export interface LoraFormat {
  naming: LoraNaming;
  /** The format in words: "kohya's names". */
  label: string;
  /** Of all layers; where layers differ, the most demanding. */
  method: LoraMethod;
  layers: LoraLayer[];
  /** Learned token embeddings, by the token, as cloneofsimo keeps them. */
  tokens: string[];
  /** Tensors that belong to no layer. */
  unknown: string[];
}

/** A role that a tensor plays for its layer, by the end of its name. */
type Role =
  | keyof Pick<LoraLayer, "down" | "up" | "mid" | "alpha" | "magnitude" | "bias">
  | Exclude<LoraMethod, "lora" | "dora">;

/** Ends of names, the longer first where one is the end of another. The layer is what stands before. */
const ENDS: readonly (readonly [end: RegExp, role: Role])[] = [
  [/(?<=_lora\d)\.down\.weight$/, "down"],
  [/(?<=_lora\d)\.up\.weight$/, "up"],
  [/[._]lora(?:_linear_layer)?\.down\.weight$|\.lora_down(?:\.default)?\.weight$|_lora_down\.weight$/, "down"],
  [/[._]lora(?:_linear_layer)?\.up\.weight$|\.lora_up(?:\.default)?\.weight$|_lora_up\.weight$/, "up"],
  [/\.lora_A(?:\.[^.]+)?\.weight$|\.lora_embedding_A(?:\.[^.]+)?$/, "down"],
  [/\.lora_B(?:\.[^.]+)?\.weight$|\.lora_embedding_B(?:\.[^.]+)?$/, "up"],
  [/\.lora_mid\.weight$|\.lora\.mid\.weight$/, "mid"],
  [/\.lora_magnitude_vector(?:\.[^.]+)?(?:\.weight)?$|\.dora_scale$|\.lora_magnitude(?:\.weight)?$/, "magnitude"],
  [/\.lora_(?:B(?:\.[^.]+)?|up|bias)\.bias$|\.lora\.up\.bias$/, "bias"],
  [/\.alpha$|\.lora_alpha$/, "alpha"],
  [/\.hada_(?:w[12]_[ab]|t[12])$/, "loha"],
  [/\.lokr_(?:w[12](?:_[ab])?|t[12])$/, "lokr"],
  [/\.oft_(?:blocks|diag)$|\.oft_R(?:\.[^.]+)?(?:\.weight)?$/, "oft"],
  [/\.on_input$|\.ia3_l(?:\.[^.]+)?$/, "ia3"],
  [/\.[ab][12]\.weight$/, "glora"],
  [/\.diff(?:_b)?$/, "full"],
];

/** Beginnings of kohya's names; the longest that fits. `lora_unet_unet_` comes of scripts that prefix twice. */
const KOHYA: readonly (readonly [prefix: string, part: LoraPart])[] = [
  ["lora_unet_unet_", "unet"],
  ["lora_unet_", "unet"],
  ["lora_te1_", "text_encoder"],
  ["lora_te2_", "text_encoder_2"],
  ["lora_te3_", "text_encoder_3"],
  ["lora_te_", "text_encoder"],
  ["lora_prior_unet_", "unet"],
  ["lora_transformer_", "transformer"],
  ["lycoris_", "unet"],
];

/** Beginnings of names with dots. */
const DOTTED: readonly (readonly [prefix: string, part: LoraPart])[] = [
  ["unet.", "unet"],
  ["transformer.", "transformer"],
  ["diffusion_model.", "transformer"],
  ["text_encoder.", "text_encoder"],
  ["text_encoder_2.", "text_encoder_2"],
  ["text_encoder_3.", "text_encoder_3"],
];
const PEFT = "base_model.model.";
/** Modules of a UNet in the original code. */
const ORIGINAL_UNET = /^(input_blocks|middle_block|output_blocks|time_embed|label_emb|out)\b/;
/** Modules that only text encoders have. */
const TEXT_MODULE = /^(text_model|text_projection|encoder\.block)\b/;
const COUNTED = /^(unet|text_encoder):(\d+):(up|down)$/;
const PROCESSOR = /^(.*)\.processor\.(.*)$/;
const XLABS = /^(?:diffusion_model\.)?(?:double|single)_blocks\.\d+\.processor\./;

const LABELS: Readonly<Record<LoraNaming, string>> = {
  kohya: "kohya's names",
  diffusers: "diffusers' names",
  processor: "diffusers' names of attention processors",
  peft: "PEFT's names",
  cloneofsimo: "cloneofsimo's names",
  xlabs: "XLabs' names",
};

/** The most demanding first. */
const METHODS: readonly LoraMethod[] = ["oft", "lokr", "loha", "glora", "ia3", "full", "dora", "lora"];

/**
 * Understands a file's names.
 *
 * @param tensors - By name.
 * @param metadata - The file's own; cloneofsimo's tells learned tokens.
 * @returns Undefined where no tensor is one of a LoRA or its relatives.
 */
export function loraFormatOf(
  tensors: ReadonlyMap<string, TensorShape>,
  metadata: Readonly<Record<string, string>> = {},
): LoraFormat | undefined {
  const layers = new Map<string, LoraLayer>();
  const namings = new Map<LoraNaming, number>();
  const unknown: string[] = [];
  const tokens: string[] = [];
  for (const name of tensors.keys()) {
    const found = understand(name);
    if (!found) {
      if (metadata[name] === "<embed>") tokens.push(name);
      else unknown.push(name);
      continue;
    }
    const { naming, part, layer, role } = found;
    const key = `${part} ${layer}`;
    const own: LoraLayer = layers.get(key) ?? { part, name: layer, method: "lora", tensors: [] };
    layers.set(key, own);
    own.tensors.push(name);
    // An alpha alone says nothing of the program.
    if (role !== "alpha") namings.set(naming, (namings.get(naming) ?? 0) + 1);
    if (role === "magnitude") own.method = "dora";
    if (isField(role)) own[role] = name;
    else own.method = role;
  }
  for (const layer of [...layers.values()]) {
    if (layer.method === "lora" && !layer.down && !layer.up) {
      layers.delete(`${layer.part} ${layer.name}`);
      unknown.push(...layer.tensors);
    }
    const first = layer.down ?? layer.tensors.find((name) => name.endsWith(".hada_w1_b"));
    const shape = first === undefined ? undefined : tensors.get(first)!.shape;
    if (shape) [layer.rank, layer.inFeatures] = shape;
  }
  const [naming] = [...namings].sort(([, a], [, b]) => b - a)[0] ?? [];
  if (naming === undefined || layers.size === 0) return undefined;
  const all = [...layers.values()];
  const method = METHODS.find((each) => all.some((layer) => layer.method === each))!;
  return { naming, label: LABELS[naming], method, layers: all, tokens, unknown };
}

interface Understood {
  naming: LoraNaming;
  part: LoraPart;
  layer: string;
  role: Role;
}

function understand(name: string): Understood | undefined {
  const counted = COUNTED.exec(name);
  if (counted) {
    const [, part, number, role] = counted;
    return { naming: "cloneofsimo", part: part as LoraPart, layer: number!, role: role as Role };
  }
  for (const [end, role] of ENDS) {
    const match = end.exec(name);
    if (!match) continue;
    const place = placeOf(name.slice(0, match.index));
    return place && { ...place, role };
  }
  return undefined;
}

/** Program, model and layer, by what stands before the tensor's own name. */
function placeOf(path: string): Omit<Understood, "role"> | undefined {
  for (const [prefix, part] of KOHYA) {
    if (path.startsWith(prefix) && path.length > prefix.length) {
      const layer = path.slice(prefix.length);
      // kohya's scripts call every denoiser a UNet.
      const isTransformer =
        part === "unet" &&
        /^(double_blocks|single_blocks|joint_blocks|layers|(noise|context)_refiner|(single_)?transformer_blocks)_/.test(
          layer,
        );
      return { naming: "kohya", part: isTransformer ? "transformer" : part, layer };
    }
  }
  if (XLABS.test(`${path}.`)) return { naming: "xlabs", part: "transformer", layer: path };
  let naming: LoraNaming = "diffusers";
  let rest = path;
  if (rest.startsWith(PEFT)) {
    naming = "peft";
    rest = rest.slice(PEFT.length);
  }
  let part: LoraPart | undefined;
  for (const [prefix, known] of DOTTED) {
    if (!rest.startsWith(prefix)) continue;
    part = known;
    rest = rest.slice(prefix.length);
    if (ORIGINAL_UNET.test(rest)) part = "unet";
    break;
  }
  // Z-Image's ends have the patches' sizes in their names, `2-1`.
  if (!/^[\w.-]+$/.test(rest)) return undefined;
  part ??= TEXT_MODULE.test(rest)
    ? "text_encoder"
    : /^(single_|double_)?transformer_blocks\./.test(rest)
      ? "transformer"
      : "unet";
  const processor = PROCESSOR.exec(rest);
  if (processor && naming === "diffusers") {
    // A processor's to_out is the layer to_out.0 of its attention.
    const layer = processor[2] === "to_out" ? "to_out.0" : processor[2]!;
    return { naming: "processor", part, layer: `${processor[1]}.${layer}` };
  }
  return { naming, part, layer: rest };
}

const isField = (role: Role): role is "down" | "up" | "mid" | "alpha" | "magnitude" | "bias" =>
  ["down", "up", "mid", "alpha", "magnitude", "bias"].includes(role);
