// Reads a pipeline's folder from disk. Node only.

import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { FormatError } from "../errors.js";
import { readWholeFile } from "../formats/file-access.js";
import { parsePythonJson, registerPipelineFolderReader } from "./pipeline-folder.js";

const LISTED_NAMES = 20;

registerPipelineFolderReader(async (dir) => {
  const known = await stat(dir).catch(() => undefined);
  if (!known) throw new FormatError(dir, adviceForMissing(dir));
  if (!known.isDirectory()) {
    throw new FormatError(
      dir,
      "is a file, but a pipeline is a folder in diffusers' layout; single files are not read.",
    );
  }
  const names = (await readdir(dir)).sort();
  if (!names.includes("model_index.json")) {
    const shown = names.slice(0, LISTED_NAMES).join(", ") + (names.length > LISTED_NAMES ? ", …" : "");
    const hint = names.includes("config.json") ? "It is a single model: name the folder around it. " : "";
    throw new FormatError(
      dir,
      `has no model_index.json; it holds ${shown || "nothing"}. ${hint}Name a pipeline's folder in diffusers' layout.`,
    );
  }
  return {
    source: dir,
    index: await readObject(join(dir, "model_index.json")),
    schedulerConfig: await readObject(join(dir, "scheduler", "scheduler_config.json")),
  };
});

function adviceForMissing(dir: string): string {
  // A hub id is owner/name; a path that starts with a dot, or goes deeper, can only be a folder.
  if (!/^[A-Za-z0-9_][\w.-]*\/[\w.-]+$/.test(dir)) return "there is no such folder.";
  return (
    "there is no such folder, and models are not yet downloaded by their hub id. Fetch the files first " +
    `(hf download ${dir} --local-dir FOLDER) and give that folder.`
  );
}

async function readObject(path: string): Promise<Record<string, unknown>> {
  const bytes = await readWholeFile(path);
  let value: unknown;
  try {
    value = parsePythonJson(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new FormatError(path, `is not valid JSON: ${(cause as Error).message}.`, { cause });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new FormatError(path, "must hold a JSON object.");
}
