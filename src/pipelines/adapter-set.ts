// The adapters that a pipeline uses, by name: those of files, or those of a model that is being trained.

import type { AttachableAdapter } from "../adapters/adapter.js";
import type { LoadedAdapter, TextEncoderName } from "../adapters/adapter-format.js";
import { AdapterModel } from "../adapters/adapter-model.js";
import {
  AdapterStack,
  attachableAdapter,
  graphAdapters,
  type StackedAdapter,
  type StackPrediction,
} from "../adapters/adapter-stack.js";
import { FeRAConfig } from "../adapters/fera/fera-config.js";
import { FeRAModel } from "../adapters/fera/fera-model.js";
import { recordLayers, type TargetLayer, targetLayers } from "../adapters/target-layers.js";
import type { Denoiser, DenoiserInputs } from "../diffusion/index.js";
import { ConfigError, FormatError, quoted } from "../errors.js";
import type { CLIPTextModel, ClipHiddenStateOptions } from "../models/clip-text/clip-text-model.js";

/** The name of an adapter that was given none. */
export const DEFAULT_ADAPTER = "default";

/** An adapter on a pipeline's parts. */
export interface NamedAdapter {
  /** Absent where a file has a part for text encoders only. */
  denoiser: AdapterModel | AttachableAdapter | undefined;
  /** By the encoder's number. */
  textEncoders: ReadonlyMap<number, AttachableAdapter>;
  /** Whether it was made here, to be released here. */
  isOwned: boolean;
}

/**
 * Which adapters act on one prompt's images: none, those in use, one or several by name, or several with scales of their
 * own.
 */
export type AdapterChoice = boolean | string | readonly string[] | Readonly<Record<string, number>>;

/** Those that act, each with its scale, as they are at one moment. */
export interface AdapterSelection {
  predict(inputs: DenoiserInputs): Promise<StackPrediction>;
  /**
   * For the text encoder of that number; undefined where none acts on it.
   *
   * @param prompt - The prompt's number, where each has adapters of its own.
   */
  ofTextEncoder(index: number, prompt?: number): ClipHiddenStateOptions["adapters"];
  /** Equal for prompts on which the same adapters act. */
  choiceOf(prompt: number): string;
}

/** The prompts of a batch, each with adapters of its own. */
export interface PromptAdapters {
  choices: readonly AdapterChoice[];
  /** Images of each prompt, which are neighbours in a batch. */
  numImages: number;
}

/** Something to be released once the runs that use it are over. */
export interface Releasable {
  release(): Promise<void>;
}

/** Adapters by name, which of them act, and how strongly. */
export class AdapterSet {
  readonly #denoiser: Denoiser;
  readonly #textEncoders: () => readonly CLIPTextModel[];
  readonly #stack: AdapterStack;
  readonly #loaded = new Map<string, NamedAdapter>();
  /** Names and scales of those that act, in the order in which they do. */
  #active: ReadonlyMap<string, number> = new Map();
  #isEnabled = true;
  #scale = 1;

  /** @param textEncoders - The pipeline's, the first one first. */
  constructor(denoiser: Denoiser, textEncoders: () => readonly CLIPTextModel[]) {
    this.#denoiser = denoiser;
    this.#textEncoders = textEncoders;
    this.#stack = new AdapterStack(denoiser);
  }

  /** All names, in the order in which they were loaded. */
  get names(): readonly string[] {
    return [...this.#loaded.keys()];
  }

  /** Those that act, while adapters are enabled; with their own scales. */
  get active(): ReadonlyMap<string, number> {
    return this.#active;
  }

  /** The first model of routed experts among those that act. */
  get fera(): FeRAModel | undefined {
    for (const name of this.#active.keys()) {
      const { denoiser } = this.#loaded.get(name)!;
      if (denoiser instanceof FeRAModel) return denoiser;
    }
    return undefined;
  }

  /** A factor on all scales. */
  get overallScale(): number {
    return this.#scale;
  }

  /** @throws {ConfigError} If it is not finite. */
  setOverallScale(scale: number): void {
    this.#scale = checkedScale("setAdapterScale", scale);
  }

  enable(isEnabled: boolean): void {
    this.#isEnabled = isEnabled;
  }

  /**
   * Adds an adapter as read; it acts from now on, at scale 1, after those that act already.
   *
   * @param name - Without one, it takes the place of all others.
   * @returns What is to be released.
   * @throws {ConfigError} If the name is taken.
   * @throws {FormatError} If it is for another model; nothing is changed then.
   */
  add(loaded: LoadedAdapter, source: string, name?: string): Releasable[] {
    if (name !== undefined) this.#checkFree(name);
    const added = this.#place(loaded, source);
    const released = name === undefined ? this.#remove(this.names, added) : [];
    this.#put(name ?? DEFAULT_ADAPTER, added);
    return released;
  }

  /**
   * Takes a model's adapters in place of all others, or none.
   *
   * @param textEncoders - Adapters of the text encoders beside them, by the encoder's number; by default those that the
   *   model's adapters were loaded with, if any.
   * @returns What is to be released.
   * @throws {ConfigError} If they are made for another denoiser.
   */
  use(model: AdapterModel | undefined, textEncoders?: ReadonlyMap<number, AttachableAdapter>): Releasable[] {
    if (model && model.model !== this.#denoiser) {
      throw new ConfigError(
        `useAdapters: the ${model.constructor.name} must be made around this pipeline's own ${this.#denoiser.className}.`,
      );
    }
    const known = this.names.find((name) => this.#loaded.get(name)!.denoiser === model);
    if (!model || known === undefined) {
      const released = this.delete(this.names);
      if (model)
        this.#put(DEFAULT_ADAPTER, { denoiser: model, textEncoders: textEncoders ?? new Map(), isOwned: false });
      return released;
    }
    if (textEncoders) this.#loaded.set(known, { ...this.#loaded.get(known)!, textEncoders });
    this.set([known]);
    return this.delete(this.names.filter((name) => name !== known));
  }

  /**
   * Makes these act, and no others.
   *
   * @param scales - One for all, or one each. Default 1.
   * @throws {ConfigError} If a name is unknown or given twice, or the scales are not finite or not as many.
   */
  set(names: readonly string[], scales: number | readonly number[] = 1): void {
    const each = typeof scales === "number" ? names.map(() => scales) : scales;
    if (each.length !== names.length) {
      throw new ConfigError(
        `setAdapters: needs one scale for all or one each; got ${each.length} for ${names.length}.`,
      );
    }
    this.#checkKnown("setAdapters", names);
    this.#active = new Map(names.map((name, i) => [name, checkedScale(`setAdapters ("${name}")`, each[i]!)]));
  }

  /** As {@link set}, of names with their scales. */
  setAll(active: Iterable<readonly [name: string, scale: number]>): void {
    const all = [...active];
    this.set(
      all.map(([name]) => name),
      all.map(([, scale]) => scale),
    );
  }

  /**
   * Forgets adapters.
   *
   * @returns What is to be released: graphs that hold them.
   * @throws {ConfigError} If a name is unknown or given twice; nothing is changed then.
   */
  delete(names: readonly string[]): Releasable[] {
    this.#checkKnown("deleteAdapters", names);
    return this.#remove(names);
  }

  /** @param next - What takes their place: graphs that it can have are kept. */
  #remove(names: readonly string[], next?: NamedAdapter): Releasable[] {
    const removed = names.map((name) => this.#loaded.get(name)!);
    for (const name of names) this.#loaded.delete(name);
    this.#active = new Map([...this.#active].filter(([name]) => this.#loaded.has(name)));
    const kept = [...this.#loaded.values(), ...(next ? [next] : [])];
    const released = new Set<Releasable>();
    for (const { denoiser, textEncoders, isOwned } of removed) {
      if (denoiser && isOwned && denoiser instanceof AdapterModel) released.add(denoiser);
      if (denoiser && isOwned && !kept.some((each) => each.isOwned && each.denoiser)) released.add(this.#stack);
      for (const index of textEncoders.keys()) {
        if (!kept.some((each) => each.textEncoders.has(index))) released.add(this.#textEncoders()[index]!);
      }
    }
    return [...released];
  }

  /** Adapters by name. @throws {ConfigError} If a name is unknown or given twice. */
  get(where: string, names: readonly string[]): NamedAdapter[] {
    this.#checkKnown(where, names);
    return names.map((name) => this.#loaded.get(name)!);
  }

  /**
   * Those that act now.
   *
   * @param wanted - False for none; or which ones act on which prompt.
   * @throws {ConfigError} If a name is unknown or given twice, or a scale is not finite.
   */
  select(wanted: boolean | PromptAdapters = true): AdapterSelection {
    const choices = typeof wanted === "boolean" ? [wanted] : wanted.choices;
    const scales = choices.map((choice) => this.#scalesOf(choice));
    const names = [...new Set(scales.flatMap((each) => [...each.keys()]))];
    const all = names.map((name) => ({ name, ...this.#loaded.get(name)! }));
    const scaleOf = (name: string, prompt: number) => scales[prompt]!.get(name) ?? 0;
    const numImages = typeof wanted === "boolean" ? 1 : wanted.numImages;
    // Where all prompts have the same adapters, a batch needs no scales for its rows.
    const isMixed = scales.some((each) => names.some((name) => each.get(name) !== scales[0]!.get(name)));
    const onDenoiser = (rows: number): StackedAdapter[] =>
      all.flatMap(({ name, denoiser, isOwned }): StackedAdapter[] => {
        if (!denoiser) return [];
        const scale = isMixed
          ? Array.from({ length: rows }, (_, row) => scaleOf(name, Math.floor(row / numImages) % choices.length))
          : scaleOf(name, 0);
        // Files' adapters share one graph, in which they can be swapped.
        return [{ name, on: isOwned && denoiser instanceof AdapterModel ? denoiser.attachable : denoiser, scale }];
      });
    return {
      predict: (inputs) => this.#stack.predict(inputs, onDenoiser(inputs.latents.shape[0]!)),
      choiceOf: (prompt) => (isMixed ? JSON.stringify([...scales[prompt]!]) : ""),
      ofTextEncoder(index, prompt = 0) {
        const own = isMixed ? prompt : 0;
        const parts = all.flatMap(({ name, textEncoders }) => {
          const part = textEncoders.get(index);
          return part && scales[own]!.has(name) ? [{ ...part, scale: scaleOf(name, own) }] : [];
        });
        return parts.length > 0 ? graphAdapters(parts) : undefined;
      },
    };
  }

  /** Scales by name of what a choice means. */
  #scalesOf(choice: AdapterChoice): Map<string, number> {
    const usual = (name: string) => this.#active.get(name) ?? 1;
    let chosen: [string, number][];
    if (typeof choice === "boolean") chosen = choice ? [...this.#active] : [];
    else if (typeof choice === "string") chosen = [[choice, usual(choice)]];
    else if (Array.isArray(choice)) chosen = choice.map((name: string) => [name, usual(name)]);
    else if (typeof choice === "object" && choice !== null) chosen = Object.entries(choice as Record<string, number>);
    else {
      throw new ConfigError(
        `generate: adapters must be true, false, a name, names, or names with scales; got ${quoted(choice)}.`,
      );
    }
    const names = chosen.map(([name]) => name);
    this.#checkKnown("generate: adapters", names);
    if (!this.#isEnabled) return new Map();
    return new Map(
      chosen.map(([name, scale]) => [name, checkedScale(`generate: adapters ("${name}")`, scale) * this.#scale]),
    );
  }

  /** Frees what was compiled; it is compiled again when needed. */
  async release(): Promise<void> {
    const models = [...this.#loaded.values()].map(({ denoiser }) => denoiser);
    await Promise.all([this.#stack, ...models].map((each) => each && "release" in each && each.release()));
  }

  #put(name: string, added: NamedAdapter): void {
    this.#loaded.set(name, added);
    this.#active = new Map([...this.#active, [name, 1]]);
  }

  #place(loaded: LoadedAdapter, source: string): NamedAdapter {
    const parts = new Map<number, AttachableAdapter>();
    for (const [component, part] of loaded.textEncoders ?? []) {
      const index = numberOf(component);
      const encoder = this.#textEncoders()[index];
      if (!encoder) throw new FormatError(source, `has a part for "${component}", which this pipeline does not have.`);
      parts.set(index, attachableAdapter(part, textEncoderLayers(encoder), source));
    }
    const isForTextOnly = parts.size > 0 && loaded.layers.length === 0;
    const denoiser = isForTextOnly ? undefined : this.#onDenoiser(loaded, source);
    return { denoiser, textEncoders: parts, isOwned: true };
  }

  /** Routed experts as a model of their own, which can be asked for its routes. */
  #onDenoiser(loaded: LoadedAdapter, source: string): AdapterModel | AttachableAdapter {
    if (!(loaded.config instanceof FeRAConfig)) {
      return attachableAdapter(loaded, targetLayers(this.#denoiser), source);
    }
    const fera = new FeRAModel(this.#denoiser, loaded.config);
    fera.useAdapter(loaded, source);
    return fera;
  }

  #checkFree(name: string): void {
    if (typeof name !== "string" || name === "") {
      throw new ConfigError(`loadAdapters: name must be a text that is not empty; got ${JSON.stringify(name)}.`);
    }
    if (!this.#loaded.has(name)) return;
    throw new ConfigError(
      `loadAdapters: an adapter "${name}" is loaded already; delete it first, or choose another name.`,
    );
  }

  #checkKnown(where: string, names: readonly string[]): void {
    const unknown = names.find((name) => !this.#loaded.has(name));
    if (unknown !== undefined) {
      const known = this.#loaded.size > 0 ? this.names.map((name) => `"${name}"`).join(", ") : "none";
      throw new ConfigError(`${where}: there is no adapter ${JSON.stringify(unknown)}; loaded are ${known}.`);
    }
    const twice = names.find((name, i) => names.indexOf(name) !== i);
    if (twice !== undefined) throw new ConfigError(`${where}: "${twice}" is named twice.`);
  }
}

const numberOf = (component: TextEncoderName): number => (component === "text_encoder" ? 0 : 1);

/** All layers of a text encoder that adapters can change. */
function textEncoderLayers(encoder: CLIPTextModel): TargetLayer[] {
  return recordLayers((graph, adapters) => {
    encoder.build(encoder.frozenScope(graph, adapters), graph.input("input_ids", "int64", [1, 1]));
  });
}

function checkedScale(where: string, scale: number): number {
  if (!Number.isFinite(scale)) throw new ConfigError(`${where}: the scale must be finite; got ${scale}.`);
  return scale;
}
