// The error hierarchy. Every error that a user can meet is a FeraError with a stable `code`;
// its message says where, the rule, what came, and what to do.

/** Base of all errors that fera throws on purpose. */
export class FeraError extends Error {
  /** Stable, machine-readable name of the kind of failure. */
  readonly code: string;

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
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

  constructor(source: string, message: string, options?: { cause?: unknown }) {
    super("format", `${source}: ${message}`, options);
    this.source = source;
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
