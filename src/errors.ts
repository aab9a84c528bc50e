// The error hierarchy. Every error that a user can meet is a FeraError with a stable `code`;
// its message says where, the rule, what came, and what to do. With it, how messages quote what a file holds.

/** Most characters of a file's content or name that a message quotes. */
const LONGEST_QUOTE = 200;

/** Most characters of a message, whatever it quotes. */
const LONGEST_MESSAGE = 16_000;

/**
 * What a terminal could act on: control characters, which move the cursor or rewrite what was printed, and those that
 * turn the direction of writing. Joiners (U+200C, U+200D) are part of words and emoji.
 */
const UNPRINTABLE = /[\p{Cc}\p{Cs}\p{Co}\u2028\u2029]|(?![\u200c\u200d])\p{Cf}/gu;

/** Escapes what a terminal would act on, line breaks too: `\u{1b}`. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}

/** Escapes as {@link printable} does, but leaves line breaks. */
export function printableLines(text: string): string {
  return text.split("\n").map(printable).join("\n");
}

/** A name or value out of a file, cut after 200 characters, never inside one. */
export function shortened(text: string): string {
  return cut(text, LONGEST_QUOTE);
}

function cut(text: string, longest: number): string {
  if (text.length <= longest) return text;
  const isHalf = (text.charCodeAt(longest - 1) & 0xfc00) === 0xd800;
  return `${text.slice(0, isHalf ? longest - 1 : longest)}…`;
}

/** A value out of a file as messages quote it: as JSON, cut where it is long, without what a terminal would act on. */
export function quoted(value: unknown): string {
  if (typeof value !== "string") return shortened(printable(JSON.stringify(value) ?? String(value)));
  const length = value.length > LONGEST_QUOTE ? ` (${value.length} characters)` : "";
  return printable(JSON.stringify(shortened(value))) + length;
}

/** Base of all errors that fera throws on purpose. Control characters in the message are escaped. */
export class FeraError extends Error {
  /** Stable, machine-readable name of the kind of failure. */
  readonly code: string;

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(printableLines(cut(message, LONGEST_MESSAGE)), options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** A tensor's shape or dtype breaks an operator's or a model's rule. */
export class ShapeError extends FeraError {
  constructor(message: string, options?: { cause?: unknown }) {
    super("shape", message, options);
  }
}

/** A file or folder is missing, truncated, malformed or hostile. */
export class FormatError extends FeraError {
  /** The file or folder, as the caller named it. */
  readonly source: string;
  /** What is wrong with it, without its name. */
  readonly reason: string;

  constructor(source: string, message: string, options?: { cause?: unknown }) {
    super("format", `${printable(source)}: ${message}`, options);
    this.source = source;
    this.reason = message;
  }
}

/** An option or configuration value that is invalid or not supported; never approximated. */
export class ConfigError extends FeraError {
  constructor(message: string, options?: { cause?: unknown }) {
    super("config", message, options);
  }
}

/** An operator whose gradient is asked for has no rule. */
export class GradientError extends FeraError {
  constructor(message: string, options?: { cause?: unknown }) {
    super("gradient", message, options);
  }
}

/** The platform lacks what was asked for, or refused to create or run a compiled graph. */
export class RuntimeError extends FeraError {
  constructor(message: string, options?: { cause?: unknown }) {
    super("runtime", message, options);
  }
}

/** Training cannot go on: a value that is not finite, no usable data, no room to write. */
export class TrainingError extends FeraError {
  constructor(message: string, options?: { cause?: unknown }) {
    super("training", message, options);
  }
}
