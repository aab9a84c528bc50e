// What to type on the command line for the training of a tab.

import type { TrainSettings } from "../../../src/studio/protocol.js";

/** The embedded model among `ModelChoice` ids, and where the installed package has it. */
export const EMBEDDED = "embedded";
const EMBEDDED_FOLDER = "node_modules/fera/assets/icons";

/** Of a tab alone. */
const OURS = new Set(["device"]);

/** @param defaults - What need not be said. */
export function commandOf(settings: TrainSettings, defaults: TrainSettings = {}): string {
  const words = ["npx", "fera", "train"];
  for (const [name, value] of Object.entries(settings)) {
    if (OURS.has(name) || value === undefined || value === false) continue;
    if (JSON.stringify(value) === JSON.stringify(defaults[name])) continue;
    const flag = `--${kebabCase(name)}`;
    if (value === true) words.push(flag);
    else if (name === "model") words.push(flag, value === EMBEDDED ? EMBEDDED_FOLDER : String(value));
    else if (Array.isArray(value) && LISTS.has(name)) words.push(flag, value.join(","));
    else for (const each of Array.isArray(value) ? value : [value]) words.push(flag, String(each));
  }
  return [...words, "--output", "runs/from-the-tab"].map(quoted).join(" ");
}

/** Lists that are one text with commas on the command line; others repeat their flag. */
const LISTS = new Set(["targetModules", "excludeModules"]);

export const kebabCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

const quoted = (word: string): string => (/^[\w./:@%+=,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);
