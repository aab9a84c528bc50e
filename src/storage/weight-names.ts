// Which of a model folder's files hold its weights, by diffusers' and transformers' names. Names only; reads nothing.

/** A model's weights in its folder. */
export interface WeightFiles {
  /** The file itself, or the index of its shards. */
  file: string;
  isIndex: boolean;
  /** `bin` is a state dict as torch.save pickles it. */
  format: "safetensors" | "bin";
}

const PICKLED = /\.(bin|pt|pth|ckpt)(\.index\.json)?$/;

/**
 * The files that a model's weights may be in, the first to be taken first: the variant before the plain ones, safetensors
 * before pickles, one file before shards.
 *
 * @param weightsName - Without ending: "diffusion_pytorch_model", or "model" for transformers' models.
 * @param variant - For example "fp16"; where there are none of it, the plain weights are taken.
 */
export function weightCandidates(weightsName: string, variant: string | undefined): WeightFiles[] {
  return (variant ? [variant, undefined] : [undefined]).flatMap((kind) =>
    (["safetensors", "bin"] as const).flatMap((format): WeightFiles[] => {
      const base = format === "bin" ? pickledName(weightsName) : weightsName;
      const plain = kind ? `${base}.${kind}.${format}` : `${base}.${format}`;
      return [
        { file: plain, isIndex: false, format },
        ...indexNames(base, format, kind).map((file) => ({ file, isIndex: true, format })),
      ];
    }),
  );
}

/** The weights to load, of the files that a folder has. */
export function chooseWeights(
  names: readonly string[],
  weightsName: string,
  variant: string | undefined,
): WeightFiles | undefined {
  return weightCandidates(weightsName, variant).find(({ file }) => names.includes(file));
}

/** The variants under which a folder holds safetensors weights, such as "fp16". */
export function variantsOf(names: readonly string[], weightsName: string): string[] {
  const found = names.flatMap((name) => {
    if (!name.startsWith(`${weightsName}.`)) return [];
    const rest = name.slice(weightsName.length + 1);
    const variant = /^([^.-]+)(?:-\d+-of-\d+)?\.safetensors(?:\.index\.json)?$/.exec(rest)?.[1];
    return variant === undefined ? [] : [variant];
  });
  return [...new Set(found)];
}

/**
 * The shards that belong to an index, by their names.
 *
 * @param index - The index as {@link chooseWeights} gave it.
 */
export function shardsOf(names: readonly string[], index: WeightFiles, variant: string | undefined): string[] {
  const base = index.file.slice(0, index.file.indexOf(`.${index.format}`));
  const isVariant = variant !== undefined && index.file.includes(`.${variant}.`);
  const stem = isVariant && base.endsWith(`.${variant}`) ? base.slice(0, -variant.length - 1) : base;
  return names.filter((name) => {
    if (!name.startsWith(`${stem}.`) && !name.startsWith(`${stem}-`)) return false;
    const found = /^(?:\.([^.-]+))?-\d+-of-\d+(?:\.([^.]+))?$/.exec(name.slice(stem.length, -index.format.length - 1));
    if (!found || !name.endsWith(`.${index.format}`)) return false;
    return (found[1] ?? found[2]) === (isVariant ? variant : undefined);
  });
}

/** What to do about a folder in which {@link chooseWeights} finds nothing. */
export function adviceForMissingWeights(names: readonly string[], weightsName: string): string {
  const variants = variantsOf(names, weightsName);
  if (variants.length > 0) return `Ask for the variant "${variants[0]}", or fetch the plain weights.`;
  if (names.some((name) => PICKLED.test(name))) {
    return "Pickled weights under these names are not read: convert them to safetensors (diffusers: save_pretrained).";
  }
  return "Fetch the model's safetensors weights into this folder.";
}

/** transformers names its pickles unlike its safetensors. */
function pickledName(weightsName: string): string {
  return weightsName === "model" ? "pytorch_model" : weightsName;
}

/** diffusers and transformers have put a variant into an index's name at three places. */
function indexNames(base: string, format: string, variant: string | undefined): string[] {
  if (variant === undefined) return [`${base}.${format}.index.json`];
  return [
    `${base}.${format}.index.${variant}.json`,
    `${base}.${format}.${variant}.index.json`,
    `${base}.${variant}.${format}.index.json`,
  ];
}
