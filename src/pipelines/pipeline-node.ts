// Reads a pipeline's folder, or a scheduler's, from disk, from the hub's cache, or a single-file checkpoint. Node only.

import { readdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { FormatError } from "../errors.js";
import type { SourceOptions } from "../models/pretrained.js";
import { openSingleFile } from "../models/single-file/single-file.js";
import { STABLE_DIFFUSION_1_CONFIG } from "../models/single-file/stable-diffusion-1-config.js";
import { registerSchedulerConfigReader } from "../schedulers/index.js";
import { readWholeFile } from "../storage/file-access.js";
import { locateModel } from "../storage/hub/locate.js";
import {
  neededComponents,
  type PipelineFolder,
  parsePythonObject,
  registerPipelineFolderReader,
} from "./pipeline-folder.js";

const LISTED_NAMES = 20;
const TOKENIZER = "tokenizer";
const SCHEDULER_CONFIG = "scheduler_config.json";

registerPipelineFolderReader(async (dir, options) => {
  const { kind, path } = await locateModel(dir, { ...options, parts: neededComponents });
  return kind === "file" ? describeSingleFile(path, options) : readFolder(path);
});

registerSchedulerConfigReader(async (dir, { subfolder = "", ...options }) => {
  const { kind, path } = await locateModel(dir, { ...options, parts: [subfolder], weights: false });
  if (kind === "file") throw new FormatError(path, `is a file, but ${SCHEDULER_CONFIG} lies in a folder.`);
  const folder = join(path, subfolder);
  const names = await readdir(folder).catch(() => [] as string[]);
  if (names.includes(SCHEDULER_CONFIG)) return readObject(join(folder, SCHEDULER_CONFIG));
  const advice = names.includes("model_index.json") ? ' It is a pipeline: give { subfolder: "scheduler" }.' : "";
  throw new FormatError(folder, `has no ${SCHEDULER_CONFIG}; it holds ${listed(names)}.${advice}`);
});

async function readFolder(dir: string): Promise<PipelineFolder> {
  const names = (await readdir(dir)).sort();
  if (!names.includes("model_index.json")) {
    const hint = names.includes("config.json") ? "It is a single model: name the folder around it. " : "";
    throw new FormatError(
      dir,
      `has no model_index.json; it holds ${listed(names)}. ${hint}Name a pipeline's folder in diffusers' layout.`,
    );
  }
  return {
    source: dir,
    index: await readObject(join(dir, "model_index.json")),
    schedulerConfig: await readObject(join(dir, "scheduler", SCHEDULER_CONFIG)),
  };
}

/** What the file does not hold comes from `config`; a tokenizer may also lie beside the file. */
async function describeSingleFile(path: string, options: SourceOptions): Promise<PipelineFolder> {
  const { family } = await openSingleFile(path);
  if (options.config !== undefined) {
    const { kind, path: config } = await locateModel(options.config, { ...options, parts: "all", weights: false });
    if (kind === "file") throw new FormatError(config, "is a file, but a configuration is a folder.");
    return { ...(await readFolder(config)), source: path, config, tokenizerSource: config };
  }
  if (family !== "Stable Diffusion 1.x") {
    throw new FormatError(
      path,
      `is a ${family} checkpoint, whose configuration is not in the file. ` +
        "Give `config`: the folder or hub id of the pipeline that it was made from, in diffusers' layout.",
    );
  }
  const beside = dirname(path);
  if (!(await stat(join(beside, TOKENIZER)).catch(() => undefined))) {
    throw new FormatError(
      path,
      `holds no tokenizer: no single-file checkpoint does. Put a folder "${TOKENIZER}" (vocab.json, merges.txt) beside ` +
        "it, or give `config`: the folder or hub id of a Stable Diffusion 1.x pipeline in diffusers' layout.",
    );
  }
  const { model_index: index, scheduler } = STABLE_DIFFUSION_1_CONFIG;
  return { source: path, index, schedulerConfig: scheduler, tokenizerSource: beside };
}

const listed = (names: readonly string[]): string =>
  names.slice(0, LISTED_NAMES).join(", ") + (names.length > LISTED_NAMES ? ", …" : "") || "nothing";

async function readObject(path: string): Promise<Record<string, unknown>> {
  return parsePythonObject(await readWholeFile(path), path);
}
