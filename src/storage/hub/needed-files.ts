// Which files of a repository a pipeline or a model needs. Names only.

import { FormatError } from "../../errors.js";
import { adviceForMissingWeights, chooseWeights, shardsOf } from "../weight-names.js";

/** What is wanted of a repository. */
export interface Wanted {
  /**
   * Folders of the repository, "" for its root; "all" for every one. A function gets `model_index.json` (an empty object
   * where there is none).
   */
  parts: readonly string[] | "all" | ((index: Record<string, unknown>) => readonly string[]);
  variant?: string;
  /** False for configurations and tokenizers alone. */
  weights?: boolean;
}

/** The pipeline's own file. */
export const MODEL_INDEX = "model_index.json";

const WEIGHT_NAMES = ["diffusion_pytorch_model", "model"];
/** Configurations, vocabularies and merges; no weights' index, no pictures, no text about the model. */
const SMALL_FILE = /\.(json|txt|model)$/;
const INDEX = /\.index(\.[^.]+)?\.json$|\.index\.json$/;

/**
 * Chooses files: of each folder the configurations, and its weights in the one form that would be loaded.
 *
 * @param id - Names the repository in errors.
 * @param paths - All files of the repository.
 * @throws {FormatError} If a model's weights exist only in a form that is not read; it says in which.
 */
export function neededFiles(
  id: string,
  paths: readonly string[],
  { parts, variant, weights = true }: { parts: readonly string[] | "all"; variant?: string; weights?: boolean },
): string[] {
  const folders = parts === "all" ? [...new Set(paths.map(folderOf))] : [...new Set(parts)];
  const needed = new Set<string>();
  if (paths.includes(MODEL_INDEX)) needed.add(MODEL_INDEX);
  for (const folder of folders) {
    const prefix = folder === "" ? "" : `${folder}/`;
    const names = paths.filter((path) => folderOf(path) === folder).map((path) => path.slice(prefix.length));
    for (const name of names) if (SMALL_FILE.test(name) && !INDEX.test(name)) needed.add(prefix + name);
    if (!weights) continue;
    const chosen = weightsOf(names, variant);
    for (const name of chosen) needed.add(prefix + name);
    if (chosen.length === 0 && names.includes("config.json")) {
      const advice = adviceForMissingWeights(
        names,
        names.some((n) => n.startsWith("diffusion_")) ? WEIGHT_NAMES[0]! : WEIGHT_NAMES[1]!,
      );
      throw new FormatError(
        `${id}/${folder}`,
        `has no weights that can be loaded; it holds ${names.join(", ")}. ${advice}`,
      );
    }
  }
  return [...needed];
}

function weightsOf(names: readonly string[], variant: string | undefined): string[] {
  for (const weightsName of WEIGHT_NAMES) {
    const found = chooseWeights(names, weightsName, variant);
    if (found) return found.isIndex ? [found.file, ...shardsOf(names, found, variant)] : [found.file];
  }
  return [];
}

function folderOf(path: string): string {
  return path.slice(0, Math.max(path.lastIndexOf("/"), 0));
}
