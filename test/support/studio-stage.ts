// What a browser test of the studio stands on: a folder of its own, the program on it, and a page of it.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, Locator, Page } from "playwright-core";
import { launchChromium } from "./chromium.js";
import { type StartedStudio, type StudioArguments, startStudio } from "./studio.js";

/** Nothing on the page takes longer on a busy machine, but for trainings and drawings. */
const PATIENCE_MS = 60_000;

/** A stage, until it is closed. */
export interface StudioStage {
  /** A temporary folder; the runs are in `runs/`. */
  root: string;
  studio: StartedStudio;
  browser: Browser;
  page: Page;
  /** Errors that pages have thrown. */
  errors: string[];
  /** Another page, of the studio that is there by then; of another visitor, unless it is opened beside one. */
  openPage(beside?: Page): Promise<Page>;
  /** Starts a studio in the place of one that has ended. @param port - Any free one by default. */
  restart(port?: number): Promise<void>;
  close(): Promise<void>;
}

/**
 * Sets it up.
 *
 * @param prepare - Fills the folder, and says what the studio is started with.
 */
export async function openStudioStage(
  prepare: (root: string) => Promise<Omit<StudioArguments, "runs">>,
): Promise<StudioStage> {
  const root = await mkdtemp(join(tmpdir(), "fera-studio-"));
  const given = { ...(await prepare(root)), runs: join(root, "runs") };
  const [studio, browser] = await Promise.all([startStudio(given), launchChromium()]);
  const stage = {
    ...{ root, studio, browser, errors: [] as string[] },
    openPage: async (beside?: Page) => {
      const page = await (beside ? beside.context().newPage() : stage.studio.openStudio(browser));
      if (beside) await page.goto(stage.studio.url);
      page.setDefaultTimeout(PATIENCE_MS);
      page.on("pageerror", (error) => stage.errors.push(error.stack ?? String(error)));
      return page;
    },
    restart: async (port?: number) => {
      stage.studio = await startStudio({ ...given, port });
    },
    close: async () => {
      await browser.close();
      await stage.studio.stop();
      await rm(root, { recursive: true, force: true, maxRetries: 5 });
    },
  };
  return Object.assign(stage, { page: await stage.openPage() });
}

/** A run in the page's list. */
export const runNamed = (page: Page, name: string): Locator =>
  page.locator(".run", { has: page.getByRole("link", { name, exact: true }) });
