// The one way to print text that may hold what came out of a file: without what a terminal would act on.

import { printableLines } from "../errors.js";

export { printable, shortened } from "../errors.js";

/** Prints a result to stdout; its line breaks stay, other control characters are escaped. */
export function print(text: string): void {
  process.stdout.write(`${printableLines(text)}\n`);
}

/** Prints a message to stderr, as {@link print} does. */
export function printError(text: string): void {
  process.stderr.write(`${printableLines(text)}\n`);
}
