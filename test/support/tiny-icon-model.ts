// The tiny pipeline as a model of icons: it names a few drawings whose captions its tokenizer has room for.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { hasSkinTone, loadIconSet } from "../../src/training/data/icons.js";
import { writeTinyPipeline } from "./tiny-pipeline.js";

/** Writes the pipeline and its `names.json`. */
export async function writeTinyIconModel(dir: string): Promise<void> {
  await writeTinyPipeline(dir);
  const names = loadIconSet("noto").names.filter((name) => /^[a-z]{3,5}$/.test(name) && !hasSkinTone(name));
  await writeFile(join(dir, "names.json"), JSON.stringify(names));
}
