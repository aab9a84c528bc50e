#!/usr/bin/env node
// The program `fera`: commands, exit codes and error messages. Exit codes: 0 done, 1 the work failed, 2 wrong
// arguments, 130 interrupted.

import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { FeraError } from "../errors.js";
import { convertCommand } from "./convert.js";
import { demoCommand } from "./demo.js";
import { evaluateCommand } from "./evaluate.js";
import { generateCommand } from "./generate.js";
import { inspectCommand } from "./inspect.js";
import { interruptedExitCode, isInterruption } from "./interrupt.js";
import { trainCommand } from "./train.js";
import { UsageError } from "./usage-error.js";

const WORK_FAILED = 1;
const WRONG_ARGUMENTS = 2;

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string;
};

const program = new Command("fera")
  .description("Fine-tunes diffusion models with frequency-energy routed adapters.")
  .version(version);

for (const command of [
  demoCommand(),
  trainCommand(),
  generateCommand(),
  evaluateCommand(),
  inspectCommand(),
  convertCommand(),
]) {
  program.addCommand(prepare(command.option("--debug", "print the stack of an error")));
}

// A reader such as `head` may leave early.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
});

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

/** Prints what went wrong. @returns The exit code. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : WRONG_ARGUMENTS;
  if (isInterruption(error)) {
    console.error("stopped");
    return interruptedExitCode();
  }
  if (error instanceof UsageError) {
    const name = error.command === program ? "fera" : `fera ${error.command.name()}`;
    console.error(`${name}: ${error.message}`);
    console.error(`Usage: ${name} ${error.command.usage()}\n${name} --help explains the options.`);
    return WRONG_ARGUMENTS;
  }
  const message = error instanceof Error ? error.message : String(error);
  console.error(error instanceof FeraError ? `fera: ${message}` : `fera: unexpected error: ${message}`);
  if (process.argv.includes("--debug")) console.error(error);
  else if (!(error instanceof FeraError)) console.error("Run it again with --debug for the stack.");
  return WORK_FAILED;
}
