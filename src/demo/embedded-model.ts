// The model that the package carries: where it is, what it can draw, and what its adapters are trained on. Node only.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { FormatError } from "../errors.js";
import { jsonIn } from "../storage/json.js";
import { ICON_STYLES, type IconStyle } from "../training/data/icons.js";

/** Folder of the embedded pipeline, in diffusers' layout. */
export const EMBEDDED_MODEL = fileURLToPath(new URL("../../assets/icons", import.meta.url));

/** The icon set that it was trained on: what it draws, and may forget. */
export const BASE_STYLE: IconStyle = "noto";

/** The icon sets that it can be taught: all others. */
export const DEMO_STYLES = Object.keys(ICON_STYLES).filter((style) => style !== BASE_STYLE) as IconStyle[];

/** Share of the names that no adapter is trained on. The base knows them all. */
export const HELD_OUT_SHARE = 0.12;

/** Layers that are adapted: all attention projections, the gated feed-forward and the time projections. */
export const ADAPTED_LAYERS: readonly string[] = [
  ...["to_q", "to_k", "to_v", "to_out.0"],
  ...["ff.net.0.proj", "ff.net.2", "time_emb_proj"],
];

/** Strength of the prompt in drawings. */
export const GUIDANCE_SCALE = 3;

/** Names that a model says it knows, in the file beside its parts; undefined where it says nothing. */
export async function knownNames(folder: string): Promise<string[] | undefined> {
  const file = join(folder, "names.json");
  const text = await readFile(file, "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  const names: unknown = jsonIn(text);
  if (Array.isArray(names) && names.every((name) => typeof name === "string")) return names;
  throw new FormatError(file, "must be a list of names.");
}
