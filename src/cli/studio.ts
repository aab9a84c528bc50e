// fera studio: the web page for data, training, watching and trying.

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import open from "open";
import { FormatError, TrainingError } from "../errors.js";
import { SAMPLER_NAMES } from "../pipelines/index.js";
import { pathExists } from "../storage/file-access.js";
import { withFileLock } from "../storage/file-lock.js";
import { isLoopback } from "../studio/access.js";
import { exportSite, HOSTING_HINT } from "../studio/export-site.js";
import { keptToken } from "../studio/kept-token.js";
import { STUDIO_FOLDER } from "../studio/run-records.js";
import { DEFAULT_PORT, startServer } from "../studio/server.js";
import { Studio } from "../studio/studio.js";
import { prepareOutputFolder } from "../training/index.js";
import { shellCommand } from "../training/options/command-line.js";
import { integer, repeated, text } from "../training/options/option.js";
import { interruptible } from "./interrupt.js";
import { addOptions, readOptions } from "./options.js";
import "./platform.js";
import { print, printError } from "./printable.js";
import { clearRun } from "./training-run.js";

const OPTIONS = {
  data: repeated("a folder of images, or of several such folders; icons:STYLE", "FOLDER"),
  runs: text("folder of the trainings", "FOLDER").withDefault("runs"),
  model: repeated("a model to offer beside the embedded one: a folder, a .safetensors checkpoint or a hub id", "MODEL"),
  port: integer(`port to listen on, 0 for any; by default the first free one from ${DEFAULT_PORT} on`, {
    min: 0,
    max: 65535,
  }),
  host: text("address to listen on; another than 127.0.0.1 can be reached from other machines", "HOST").withDefault(
    "127.0.0.1",
  ),
  export: text(
    "starts no server: writes the studio as static files into this folder, which train on the embedded model in the tab of " +
      "anyone who opens them",
    "FOLDER",
  ),
};

/** The package's own files. */
const inPackage = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));

/** The command. */
export function studioCommand(version: string): Command {
  const command = new Command("studio").description(
    "Opens the studio in a browser: look at data, train, watch trainings, and try what was trained.",
  );
  addOptions(command, OPTIONS);
  // The library takes "no" from the name: the value is `open`.
  command.option("--no-open", "do not open the page in a browser");
  return command.action(async () => {
    const { data = [], runs, model = [], port, host, export: folder } = await readOptions(command, OPTIONS);
    if (folder !== undefined) return exportTo(folder);
    for (const place of data) await checkPlace(place);
    await prepareOutputFolder(runs);
    const studio = new Studio({
      version,
      data,
      runs,
      models: model,
      embeddedModel: inPackage("assets/icons"),
      samplers: SAMPLER_NAMES,
      program: inPackage("dist/cli/main.js"),
      clearRun,
    });
    const token = await keptToken(runs);
    const server = await startServer(studio, { host, port, token, page: inPackage("dist/studio-page") });
    await interruptible("Ending the studio.", (signal) =>
      aloneIn(runs, async () => {
        if (port === undefined && server.port !== DEFAULT_PORT)
          printError(`port ${DEFAULT_PORT} is in use; ${server.port} is free`);
        await studio.open();
        print(`studio    ${server.url}`);
        if (!isLoopback(host)) {
          printError(
            `warning   --host ${host}: other machines can reach the studio. Anyone who has the address above can read and change ` +
              "what is in its folders and start trainings, and the connection is not encrypted.",
          );
        }
        print("Press Ctrl-C to end it.");
        if (command.opts<{ open: boolean }>().open)
          await open(server.openOnce()).catch(() => printError("No browser could be started; open the address above."));
        if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
        await studio.close();
      }).finally(() => server.close()),
    );
  });
}

/** @throws {FormatError} If there is nothing of that name. */
async function checkPlace(place: string): Promise<void> {
  if (place.startsWith("icons:") || (await pathExists(place))) return;
  throw new FormatError(place, "there is no such folder. Name a folder of images, or one of several such folders.");
}

/** Runs while no other studio does with the same runs: both would start what is queued. @throws {TrainingError} If one does. */
function aloneIn(runs: string, run: () => Promise<void>): Promise<void> {
  const lock = join(runs, STUDIO_FOLDER, "lock");
  return withFileLock(lock, run, {
    onWait: () => {
      throw new TrainingError(
        `${runs}: another fera studio is at work with these runs. Open its page, or choose another --runs. ` +
          `(If there is none, delete ${lock}.)`,
      );
    },
  });
}

async function exportTo(folder: string): Promise<void> {
  const { files, sizeBytes } = await exportSite(folder);
  print(`studio    ${folder} (${files.length} files, ${Math.round(sizeBytes / 1e6)} MB)`);
  print(HOSTING_HINT.replaceAll("FOLDER", shellCommand([folder])));
}
