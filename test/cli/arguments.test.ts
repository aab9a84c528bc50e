import { describe, expect, it } from "vitest";
import { runFera } from "../support/fera-program.js";

describe("fera", () => {
  it.each([[["--help"]], [["--version"]], [["train", "--help"]]])("%s is done with exit code 0", async (args) => {
    const { code, stdout, stderr } = await runFera(...args);
    expect(code).toBe(0);
    expect(stdout).not.toBe("");
    expect(stderr).toBe("");
  });

  it("explains every option of a command with its default", async () => {
    const { stdout } = await runFera("train", "--help");
    for (const flag of ["--num-bands <N>", "--fecl-weight <X>", "--validation-prompts <PROMPT>", "--config <FILE>"]) {
      expect(stdout).toContain(flag);
    }
    expect(stdout).toMatch(/--router-tau <X> [^(]*\(default: 0\.7\)/);
  });

  it.each([
    ["a command that is unknown", ["trian"], /unknown command 'trian'.*train/s],
    ["an option that is unknown", ["train", "--numbands", "3"], /unknown option '--numbands'.*--num-bands/s],
    ["an option without its value", ["train", "--rank"], /argument missing/],
    ["no number", ["train", "--rank", "four"], /--rank must be an integer of 1 or more; got "four"/],
    ["an empty number", ["train", "--steps", ""], /--steps must be an integer of 1 or more; got ""/],
    ["a number out of range", ["train", "--dropout", "1"], /--dropout must be .*below 1; got "1"/],
    ["a word that is no choice", ["train", "--bands", "x"], /--bands must be one of reference, complete; got "x"/],
    ["too many arguments", ["inspect", "a", "b"], /too many arguments/],
    ["a configuration file that is missing", ["train", "--config", "none.json"], /none\.json: cannot be read/],
  ])("refuses %s with exit code 2 and the usage", async (_, args, message) => {
    const { code, stderr } = await runFera(...args);
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/^Usage: fera/m);
    expect(code).toBe(2);
  });

  it("without a command shows the help, with exit code 2", async () => {
    const { code, stderr } = await runFera();
    expect(stderr).toContain("Commands:");
    expect(code).toBe(2);
  });

  it("prints the stack of a failure only with --debug", async () => {
    expect((await runFera("inspect", "none")).stderr).not.toContain(" at ");
    expect((await runFera("inspect", "none", "--debug")).stderr).toMatch(/FormatError: none.*\n +at /);
  });
});
