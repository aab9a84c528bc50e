// Checks of what optimizers are configured with.

import { ConfigError } from "../../errors.js";

/** @throws {ConfigError} Unless a hyperparameter is a finite number, 0 or more. */
export function checkNonNegative(optimizer: string, name: string, value: number): void {
  if (typeof value !== "number" || !Number.isFinite(value) || value < 0) {
    throw new ConfigError(`${optimizer}: ${name} must be a finite number, 0 or more; got ${String(value)}.`);
  }
}

/** @throws {ConfigError} Unless a hyperparameter is a finite number above 0. */
export function checkPositive(optimizer: string, name: string, value: number): void {
  if (typeof value !== "number" || !Number.isFinite(value) || value <= 0) {
    throw new ConfigError(`${optimizer}: ${name} must be a finite number above 0; got ${String(value)}.`);
  }
}

/** @throws {ConfigError} Unless a decay rate lies in [0, 1). */
export function checkRate(optimizer: string, name: string, value: number): void {
  if (typeof value !== "number" || !(value >= 0 && value < 1)) {
    throw new ConfigError(`${optimizer}: ${name} must be a number in [0, 1); got ${String(value)}.`);
  }
}

/** @throws {ConfigError} Unless a hyperparameter is an integer of `least` or more. */
export function checkCount(optimizer: string, name: string, value: number, least = 0): void {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new ConfigError(`${optimizer}: ${name} must be an integer of ${least} or more; got ${String(value)}.`);
  }
}

/** @throws {ConfigError} Unless a switch is true or false. */
export function checkSwitch(optimizer: string, name: string, value: boolean): void {
  if (typeof value !== "boolean") {
    throw new ConfigError(`${optimizer}: ${name} must be true or false; got ${String(value)}.`);
  }
}

/** Two decay rates of averages. @throws {ConfigError} Unless both lie in [0, 1). */
export function checkBetas(optimizer: string, betas: readonly [number, number]): readonly [number, number] {
  if (!Array.isArray(betas) || betas.length !== 2 || !betas.every((beta) => beta >= 0 && beta < 1)) {
    throw new ConfigError(`${optimizer}: betas must be two numbers in [0, 1); got ${JSON.stringify(betas)}.`);
  }
  return [betas[0]!, betas[1]!];
}

/** @throws {ConfigError} If an option was given that the optimizer does not have. */
export function refuseUnknown(optimizer: string, unknown: Readonly<Record<string, unknown>>): void {
  const [name] = Object.keys(unknown);
  if (name === undefined) return;
  const advice = name === "learningRate" ? "; write lr" : "";
  throw new ConfigError(`${optimizer}: there is no option "${name}"${advice}.`);
}
