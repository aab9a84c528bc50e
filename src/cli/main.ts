#!/usr/bin/env node
// The program `fera`: commands, exit codes and error messages. Exit codes: 0 done, 1 the work failed, 2 wrong
// arguments, 130 interrupted.

import { readFileSync } from "node:fs";
import { inspect } from "node:util";
import { Command, CommanderError } from "commander";
import { FeraError } from "../errors.js";
import { describeSystemError } from "../storage/file-access.js";
import { convertCommand } from "./convert.js";
import { dataCommand } from "./data.js";
import { demoCommand } from "./demo.js";
import { doctorCommand } from "./doctor.js";
import { evaluateCommand } from "./evaluate.js";
import { evidenceCommand } from "./evidence.js";
import { generateCommand } from "./generate.js";
import { inspectCommand } from "./inspect.js";
import { interruptedExitCode, isInterruption } from "./interrupt.js";
import { printError } from "./printable.js";
import { studioCommand } from "./studio.js";
import { trainCommand } from "./train.js";
import { UsageError } from "./usage-error.js";

const WORK_FAILED = 1;
const WRONG_ARGUMENTS = 2;

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string;
};

let lostOutput = false;

const program = new Command("fera")
  .description("Fine-tunes diffusion models with frequency-energy routed adapters.")
  .version(version);

for (const command of [
  demoCommand(),
  dataCommand(),
  trainCommand(),
  generateCommand(),
  evaluateCommand(),
  inspectCommand(),
  convertCommand(),
  studioCommand(version),
  evidenceCommand(),
  doctorCommand(),
]) {
  program.addCommand(prepare(command.option("--debug", "print the stack of an error")));
}

for (const stream of [process.stdout, process.stderr]) stream.on("error", onLostOutput);

try {
  await prepare(program).parseAsync();
} catch (error) {
  process.exitCode = report(error);
}

/** Lets a command throw its mistakes instead of printing them and ending the process. */
function prepare(command: Command): Command {
  return command.configureOutput({ outputError: () => {} }).exitOverride((error) => {
    if (error.exitCode === 0 || error.code === "commander.help") throw error;
    throw new UsageError(command, error.message.replace(/^error: /, ""));
  });
}

/** What is printed can get lost; the work goes on and its files are written. */
function onLostOutput(error: NodeJS.ErrnoException): void {
  // A reader such as `head` may leave early.
  if (error.code === "EPIPE" || lostOutput) return;
  lostOutput = true;
  printError(`fera: what it prints cannot be written: ${error.message}.`);
  process.once("exit", (code) => {
    process.exitCode = code || WORK_FAILED;
  });
}

/** Prints what went wrong. @returns The exit code. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : WRONG_ARGUMENTS;
  if (isInterruption(error)) {
    printError("stopped");
    return interruptedExitCode();
  }
  if (error instanceof UsageError) {
    const name = error.command === program ? "fera" : `fera ${error.command.name()}`;
    printError(`${name}: ${error.message}`);
    printError(`Usage: ${name} ${error.command.usage()}\n${name} --help explains the options.`);
    return WRONG_ARGUMENTS;
  }
  const message = error instanceof Error ? error.message : String(error);
  if (isOutOfMemory(error)) {
    printError(
      `fera: this takes more memory than there is (${message}). Ask for smaller or fewer images, or a smaller batch.`,
    );
    return WORK_FAILED;
  }
  const expected = error instanceof FeraError ? message : describeSystemError(error);
  printError(expected === undefined ? `fera: unexpected error: ${message}` : `fera: ${expected}`);
  if (process.argv.includes("--debug")) printError(inspect(error));
  else if (expected === undefined) printError("Run it again with --debug for the stack.");
  return WORK_FAILED;
}

/** What V8 throws where an array is longer than it can be, or than memory is left for. */
function isOutOfMemory(error: unknown): boolean {
  return (
    error instanceof RangeError &&
    /^(Invalid typed array length|Invalid array length|Array buffer allocation failed)/.test(error.message)
  );
}
