// Whether what is resumed is the same training, told before anything is encoded. Node only.

import { readFile } from "node:fs/promises";
import { isObject, jsonIn } from "../storage/json.js";
import { readNewestCheckpoint } from "./checkpoint.js";
import { refuseOtherFingerprint } from "./fingerprint.js";
import { type DatasetIdentity, datasetChanges } from "./identity.js";
import { outputPath } from "./output-folder.js";

/**
 * Says at once, not after the images are encoded, that what is resumed was trained otherwise.
 *
 * @throws {TrainingError} That names the options, models, images and captions that differ.
 */
export async function refuseOtherTraining(
  output: string,
  fingerprint: string,
  identity: DatasetIdentity,
): Promise<void> {
  const newest = await readNewestCheckpoint(outputPath(output, "checkpoints"));
  if (!newest) return;
  const text = await readFile(outputPath(output, "dataset"), "utf8").catch(() => "");
  const before = parsedIdentity(text);
  const dataChanges = before && datasetChanges(before, identity);
  refuseOtherFingerprint(newest.path, newest.checkpoint.fingerprint, fingerprint, dataChanges);
}

/** Undefined where the file is damaged: the fingerprint has the data's hash still. */
function parsedIdentity(text: string): DatasetIdentity | undefined {
  const value = jsonIn(text);
  return isObject(value) && Object.values(value).every(isObject) ? (value as DatasetIdentity) : undefined;
}
