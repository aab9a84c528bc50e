import { describe, expect, it } from "vitest";
import { runFera } from "../support/fera-program.js";

describe("fera", () => {
  it("explains itself and every option of a command with its default, with exit code 0", async () => {
    const [whole, train, version] = await Promise.all([runFera("--help"), runFera("train", "--help"), runFera("-V")]);
    for (const { code, stderr } of [whole, train, version]) expect([code, stderr]).toEqual([0, ""]);
    expect(version.stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
    for (const command of ["train", "generate", "inspect", "convert", "evaluate", "demo"]) {
      expect(whole.stdout).toContain(`\n  ${command} `);
    }
    for (const flag of ["--num-bands <N>", "--fecl-weight <X>", "--validation-prompts <PROMPT>", "--config <FILE>"]) {
      expect(train.stdout).toContain(flag);
    }
    expect(train.stdout).toMatch(/--router-tau <X> [^(]*\(default: 0\.7\)/);
  });

  it("lists every value that is refused, with its flag and rule", async () => {
    const flags = ["--rank", "four", "--steps", "", "--dropout", "1", "--bands", "x", "--target-modules", "to_q,"];
    const { code, stderr } = await runFera("train", ...flags, "--seed", "-1");
    expect(code).toBe(2);
    for (const problem of [
      '--rank must be an integer of 1 or more; got "four"',
      '--steps must be an integer of 1 or more; got ""',
      '--dropout must be a finite number, 0 or more and below 1; got "1"',
      '--bands must be one of reference, complete; got "x"',
      '--target-modules must be a list without empty items; got "to_q,"',
      '--seed must be an integer of 0 or more; got "-1"',
    ]) {
      expect(stderr).toContain(problem);
    }
  });

  it.each([
    ["a command that is unknown", ["trian"], /unknown command 'trian'.*train/s],
    ["an option that is unknown", ["train", "--numbands", "3"], /unknown option '--numbands'.*--num-bands/s],
    ["an option without its value", ["train", "--rank"], /argument missing/],
    [
      "an adapter that is given twice",
      ["generate", "--adapter", "a", "--adapter", "b"],
      /--adapter is given twice: "a" and "b"/,
    ],
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
