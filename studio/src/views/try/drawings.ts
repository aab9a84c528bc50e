// The form and the drawings of this visit; kept when the view is left, and drawn on meanwhile.

import { computed, signal } from "@preact/signals";
import type {
  AdapterChoice,
  DrawnImage,
  DrawRequest,
  RunSummary,
  StudioEvent,
} from "../../../../src/studio/protocol.js";
import { attempt, backend, studio } from "../../store.js";
import { type Choices, EMPTY_FORM } from "./draw-form.js";

type DrawingEvent = Extract<StudioEvent, { job: string }>;

/** What was asked for, and what came of it. */
export interface Drawing {
  job: string;
  request: DrawRequest;
  images: readonly DrawnImage[];
  done: number;
  total: number;
  activity?: string;
  isOver: boolean;
  error?: string;
}

export const form = signal(EMPTY_FORM);
/** The newest first. */
export const drawings = signal<readonly Drawing[]>([]);
export const adapters = signal<readonly AdapterChoice[]>([]);
export const samplers = signal<readonly string[]>([]);
export const choices = computed<Choices>(() => ({
  models: studio.value?.models ?? [],
  adapters: adapters.value,
  samplers: samplers.value,
}));

/** Events of jobs that are not known yet: they can come before the answer that names the job. */
const early: DrawingEvent[] = [];
const MOST_EARLY = 200;
const MOST_KEPT = 50;

let isListening = false;

/** Asks what can be drawn with, and from then on follows all drawings. */
export async function prepareDrawing(): Promise<void> {
  if (!isListening) {
    isListening = true;
    backend().subscribe(take);
  }
  const found = await attempt(() => Promise.all([backend().adapters(), backend().samplers()]));
  if (found) [adapters.value, samplers.value] = found;
  const [first] = studio.value?.models ?? [];
  if (form.value.model === "" && first) form.value = { ...form.value, model: first.id };
}

let wasLost = false;

function take(event: StudioEvent): void {
  if (event.kind === "connection") {
    if (wasLost && event.isConnected) giveUpOnLost();
    wasLost = !event.isConnected;
  }
  if (event.kind === "runs") void readAdapters(event.runs);
  if (event.kind !== "drawing" && event.kind !== "drawn" && event.kind !== "drawingEnded") return;
  if (drawings.value.some(({ job }) => job === event.job)) apply(event);
  else {
    early.push(event);
    if (early.length > MOST_EARLY) early.shift();
  }
}

/** Runs that were there, and whether each was at its end: another list may mean other adapters. */
let seen = "";

async function readAdapters(runs: readonly RunSummary[]): Promise<void> {
  const now = runs.map(({ id, state }) => `${id} ${state}`).join("\n");
  if (now === seen) return;
  seen = now;
  const found = await attempt(() => backend().adapters());
  if (found) adapters.value = found;
}

function apply(event: DrawingEvent): void {
  drawings.value = drawings.value.map((drawing) => (drawing.job === event.job ? after(drawing, event) : drawing));
}

function after(drawing: Drawing, event: DrawingEvent): Drawing {
  if (event.kind === "drawn") return { ...drawing, images: [...drawing.images, event.image] };
  if (event.kind === "drawingEnded") {
    return { ...drawing, isOver: true, ...(event.error !== undefined && { error: event.error }) };
  }
  const { activity: _, ...rest } = drawing;
  const { done, total, activity } = event;
  return { ...rest, done, total, ...(activity !== undefined && { activity }) };
}

/** What a drawing told while nobody listened is lost, its end perhaps with it. */
function giveUpOnLost(): void {
  const error =
    "The connection was lost while this was drawn. What was finished lies in the runs folder; draw again for the rest.";
  drawings.value = drawings.value.map((drawing) => (drawing.isOver ? drawing : { ...drawing, isOver: true, error }));
}

/** Draws. */
export async function draw(request: DrawRequest, count: number): Promise<void> {
  const job = await attempt(() => backend().draw(request));
  if (job === undefined) return;
  const begun: Drawing = { job, request, images: [], done: 0, total: count, isOver: false };
  drawings.value = [begun, ...drawings.value].slice(0, MOST_KEPT);
  for (const event of early.filter((each) => each.job === job)) apply(event);
}

/** Ends a drawing; what it has drawn stays. */
export async function cancel(job: string): Promise<void> {
  await attempt(() => backend().cancelDrawing(job));
  apply({ kind: "drawingEnded", job });
}
