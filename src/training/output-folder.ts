// Paths in a training's output folder. Its names are in output-names.ts.

import { join } from "node:path";
import { OUTPUT_NAMES, stepName } from "./output-names.js";

export {
  isOwnName,
  isPromptFolder,
  isPromptPicture,
  isValidationPicture,
  OUTPUT_NAMES,
  PROMPT_FILE,
  routeFile,
  stepName,
} from "./output-names.js";

/** A path in an output folder. */
export const outputPath = (output: string, name: keyof typeof OUTPUT_NAMES): string => join(output, OUTPUT_NAMES[name]);

/** The picture of all prompts at a step, in `validation/`. */
export const validationPicture = (output: string, step: number): string =>
  join(outputPath(output, "validation"), `${stepName(step)}.png`);
