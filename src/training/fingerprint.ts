// What differs between the fingerprints of two trainings, in words. How one is made: identity.ts, or the caller.

import { TrainingError } from "../errors.js";

/** Most differences that a message names. */
const NAMED = 3;

/**
 * Refuses to go on from a checkpoint of another training.
 *
 * @param path - The checkpoint, for the message.
 * @param dataChanges - What differs between the data, where that is known.
 * @throws {TrainingError} That names what differs.
 */
export function refuseOtherFingerprint(
  path: string,
  before: string,
  now: string,
  dataChanges: readonly string[] = [],
): void {
  if (before === now) return;
  const changes = fingerprintChanges(before, now, dataChanges);
  // The same settings in another order.
  if (changes.length === 0) return;
  const more = changes.length > NAMED ? `; and ${changes.length - NAMED} more` : "";
  throw new TrainingError(
    `${path}: the checkpoint is of another training: ${changes.slice(0, NAMED).join("; ")}${more}. ` +
      "Resume with what it began with, or start anew in another output folder.",
  );
}

/**
 * Which of the settings in two fingerprints differ: "rank was 4, is 8"; of texts that are no JSON objects, both.
 *
 * @param dataChanges - What differs between the data, where that is known.
 */
export function fingerprintChanges(before: string, now: string, dataChanges: readonly string[] = []): string[] {
  const [was, is] = [settingsIn(before), settingsIn(now)];
  if (!was || !is) return [`${before || "none"}, now ${now || "none"}`];
  const differs = (path: string) => was.get(path) !== is.get(path);
  return (
    [...new Set([...was.keys(), ...is.keys()])]
      .filter(differs)
      // Other captions are other tokens, too.
      .filter((path) => path !== "tokens" || !differs("dataset"))
      .flatMap((path) => {
        const [part, ...rest] = path.split(".") as [string, ...string[]];
        const name = rest.join(".");
        const values = `was ${was.get(path) ?? "not set"}, is ${is.get(path) ?? "not set"}`;
        if (part === "dataset") return dataChanges.length > 0 ? dataChanges : ["the images or captions are others"];
        if (part === "tokens") return ["the tokenizer gives other tokens"];
        if (part === "weights") return [`the weights of ${name} are others`];
        if (part === "scheduler") return [`the scheduler's ${name} ${values}`];
        if (part === "models") return [`${rest[0]}'s ${rest.slice(1).join(".")} ${values}`];
        return [`${part === "config" ? name : path} ${values}`];
      })
  );
}

/** Values as JSON by the path to them, or undefined where the text is no JSON object. */
function settingsIn(fingerprint: string): Map<string, string> | undefined {
  let settings: unknown;
  try {
    settings = JSON.parse(fingerprint);
  } catch {
    return undefined;
  }
  if (typeof settings !== "object" || settings === null) return undefined;
  const found = new Map<string, string>();
  const visit = (value: unknown, path: string): void => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) found.set(path, JSON.stringify(value));
    else for (const [key, inner] of Object.entries(value)) visit(inner, path === "" ? key : `${path}.${key}`);
  };
  visit(settings, "");
  return found;
}
