// Texts out of files, made fit for a terminal.

const LONGEST = 200;

/** Control characters, which could move the cursor or rewrite what was printed, and those that turn the direction. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\u2028\u2029]/gu;

/** Escapes what a terminal would act on: `\u{1b}`. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}

/** A name or value out of a file, cut where it is very long. */
export function shortened(text: string): string {
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}
