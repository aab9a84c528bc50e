// The adapters that a pipeline uses, by name: those of files, or those of a model that is being trained.

import type { AttachableAdapter } from "../adapters/adapter.js";
import type { LoadedAdapter, TextEncoderName } from "../adapters/adapter-format.js";
import type { AdapterModel } from "../adapters/adapter-model.js";
import {
  AdapterStack,
  attachableAdapter,
  graphAdapters,
  type StackedAdapter,
  type StackPrediction,
} from "../adapters/adapter-stack.js";
import { FeRAConfig } from "../adapters/fera/fera-config.js";
import { FeRAModel } from "../adapters/fera/fera-model.js";
import { recordLayers, targetLayers } from "../adapters/target-layers.js";
import type { Denoiser, DenoiserInputs } from "../diffusion/index.js";
import { ConfigError, FormatError } from "../errors.js";
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

/** Those that act, each with its scale, as they are at one moment. */
export interface AdapterSelection {
  predict(inputs: DenoiserInputs): Promise<StackPrediction>;
  /** For the text encoder of that number; undefined where none acts on it. */
  ofTextEncoder(index: number): ClipHiddenStateOptions["adapters"];
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
    const released = name === undefined ? this.delete(this.names) : [];
    this.#put(name ?? DEFAULT_ADAPTER, added);
    return released;
  }

  /**
   * Takes a model's adapters in place of all others, or none.
   *
   * @returns What is to be released.
   * @throws {ConfigError} If they are made for another denoiser.
   */
  use(model: AdapterModel | undefined): Releasable[] {
    if (model && model.model !== this.#denoiser) {
      throw new ConfigError(
        `useAdapters: the ${model.constructor.name} must be made around this pipeline's own ${this.#denoiser.className}.`,
      );
    }
    const known = this.names.find((name) => this.#loaded.get(name)!.denoiser === model);
    if (!model || known === undefined) {
      const released = this.delete(this.names);
      if (model) this.#put(DEFAULT_ADAPTER, { denoiser: model, textEncoders: new Map(), isOwned: false });
      return released;
    }
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
    const released = new Set<Releasable>();
    for (const name of names) {
      const { denoiser, textEncoders, isOwned } = this.#loaded.get(name)!;
      if (denoiser && !("release" in denoiser)) released.add(this.#stack);
      else if (denoiser && isOwned) released.add(denoiser);
      for (const index of textEncoders.keys()) released.add(this.#textEncoders()[index]!);
      this.#loaded.delete(name);
    }
    this.#active = new Map([...this.#active].filter(([name]) => this.#loaded.has(name)));
    return [...released];
  }

  /** Adapters by name. @throws {ConfigError} If a name is unknown or given twice. */
  get(where: string, names: readonly string[]): NamedAdapter[] {
    this.#checkKnown(where, names);
    return names.map((name) => this.#loaded.get(name)!);
  }

  /** Those that act now. @param isWanted - False for none. */
  select(isWanted = true): AdapterSelection {
    const active = isWanted && this.#isEnabled ? [...this.#active] : [];
    const all = active.map(([name, scale]) => ({ name, scale: scale * this.#scale, ...this.#loaded.get(name)! }));
    const onDenoiser = all.flatMap(({ name, scale, denoiser }): StackedAdapter[] =>
      denoiser ? [{ name, on: denoiser, scale }] : [],
    );
    return {
      predict: (inputs) => this.#stack.predict(inputs, onDenoiser),
      ofTextEncoder(index) {
        const parts = all.flatMap(({ scale, textEncoders }) => {
          const part = textEncoders.get(index);
          return part ? [{ ...part, scale }] : [];
        });
        return parts.length > 0 ? graphAdapters(parts) : undefined;
      },
    };
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
function textEncoderLayers(encoder: CLIPTextModel) {
  return recordLayers((graph, adapters) => {
    encoder.build(encoder.frozenScope(graph, adapters), graph.input("input_ids", "int64", [1, 1]));
  });
}

function checkedScale(where: string, scale: number): number {
  if (!Number.isFinite(scale)) throw new ConfigError(`${where}: the scale must be finite; got ${scale}.`);
  return scale;
}
