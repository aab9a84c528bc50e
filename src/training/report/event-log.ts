// A training's steps as event files for TensorBoard, one file for every time that it begins or goes on. Node only.

import { appendFile } from "node:fs/promises";
import { join } from "node:path";
import { FormatError } from "../../errors.js";
import { encodePng } from "../../images/image-file.js";
import { type ImageLike, toRgbImage } from "../../images/pixels.js";
import { makeFolder, reasonOf } from "../../storage/file-access.js";
import { type Event, eventRecord, FILE_VERSION, type SummaryValue } from "./event-file.js";
import { NO_TERMS, type StepMeasures, type StepReport } from "./step-report.js";

/** Names of a training's event files, the older ones first; other names in the folder are not ours. */
export const isEventFile = (name: string): boolean => /^events\.out\.tfevents\.\d+\.\d+\.fera$/.test(name);

/** Appends to one event file. Each call is one write of whole records. */
export class EventLog {
  private path: string | undefined;

  constructor(private readonly folder: string) {}

  /**
   * Begins a file. Readers forget what earlier files have of this step and later.
   *
   * @param step - The first that will be written.
   * @throws {FormatError} If it cannot be written.
   */
  async start(step: number): Promise<void> {
    await makeFolder(this.folder);
    const now = Date.now();
    const wallTime = now / 1000;
    // Readers take the files in the order of their names.
    const part = String(now % 1000).padStart(3, "0") + process.pid;
    const name = `events.out.tfevents.${Math.floor(wallTime)}.${part}.fera`;
    this.path = join(this.folder, name);
    await this.append({ wallTime, step: 0, fileVersion: FILE_VERSION }, { wallTime, step, isStart: true });
  }

  /** A step's losses, numbers and measures. */
  async step(step: number, report: StepReport | undefined, measures: StepMeasures): Promise<void> {
    const values: SummaryValue[] = [];
    const add = (tag: string, scalar: number | undefined) => {
      if (scalar !== undefined) values.push({ tag, scalar });
    };
    if (report) {
      add("loss/train", report.loss);
      for (const [name, value] of Object.entries(report)) if (!NO_TERMS.has(name)) add(`loss/${name}`, value);
      add("training/learning rate", report.learningRate);
      add("training/gradient norm", report.gradientNorm);
      add("training/steps per second", report.stepsPerSecond);
    }
    const { validation, gates, peakMemoryBytes } = measures;
    if (peakMemoryBytes !== undefined) add("training/peak memory in MB", peakMemoryBytes / 1e6);
    if (validation) {
      add("loss/validation", validation.loss);
      for (const { from, to, error } of validation.byTimestep)
        add(`validation by timestep/${from} to ${to - 1}`, error);
      for (const [band, error] of Object.entries(validation.byBand)) add(`validation by band/${band}`, error);
    }
    for (const { timestep, gates: each } of gates ?? []) {
      for (const [expert, gate] of each.entries()) add(`gates at timestep ${timestep}/expert ${expert + 1}`, gate);
    }
    if (values.length > 0) await this.append({ wallTime: Date.now() / 1000, step, values });
  }

  /** Pictures of a step, by name. */
  async pictures(step: number, pictures: ReadonlyMap<string, readonly ImageLike[]>): Promise<void> {
    const values: SummaryValue[] = [];
    for (const [name, images] of pictures) {
      for (const [i, image] of images.entries()) {
        const rgb = toRgbImage(image);
        const tag = `${name.replaceAll("/", "∕")}/${i + 1}`;
        values.push({ tag, png: await encodePng(rgb), width: rgb.width, height: rgb.height });
      }
    }
    if (values.length > 0) await this.append({ wallTime: Date.now() / 1000, step, values });
  }

  private async append(...events: Event[]): Promise<void> {
    const { path } = this;
    if (path === undefined) return;
    await appendFile(path, Buffer.concat(events.map(eventRecord))).catch((cause: NodeJS.ErrnoException) => {
      throw new FormatError(path, `cannot be written: ${reasonOf(cause)}.`, { cause });
    });
  }
}
