// The adapters of a pipeline: loading, choosing, scaling, fusing. What is done with them is in diffusion-pipeline.ts.

import type { AttachableAdapter } from "../adapters/adapter.js";
import { ADAPTER_DATA, type LoadedAdapter, readAdapter } from "../adapters/adapter-format.js";
import type { AdapterModel } from "../adapters/adapter-model.js";
import type { FeRAModel } from "../adapters/fera/fera-model.js";
import type { Denoiser } from "../diffusion/index.js";
import { ConfigError } from "../errors.js";
import type { CLIPTextModel } from "../models/clip-text/clip-text-model.js";
import type { CLIPTokenizer } from "../models/clip-tokenizer/clip-tokenizer.js";
import { type AdapterSelection, AdapterSet, type PromptAdapters, type Releasable } from "./adapter-set.js";
import { fuseInto } from "./fused-lora.js";
import { AddedTokens } from "./textual-inversion.js";
import { readTokenEmbedding, type TokenEmbedding } from "./token-embedding.js";

/** A pipeline whose denoiser and text encoders can have adapters. */
export abstract class AdaptedPipeline<Model extends Denoiser = Denoiser> {
  /** The model that is run at every step. */
  readonly denoiser: Model;
  readonly #adapters: AdapterSet;
  readonly #tokens: AddedTokens;
  /** What was fused, and how to undo it. */
  #fused: { names: readonly string[]; restore: () => Promise<void> } | undefined;
  #queue: Promise<unknown> = Promise.resolve();

  protected constructor(denoiser: Model) {
    this.denoiser = denoiser;
    this.#adapters = new AdapterSet(denoiser, () => this.textEncoders);
    this.#tokens = new AddedTokens(() =>
      this.textEncoders.map((textEncoder, i) => ({ textEncoder, tokenizer: this.tokenizers[i]! })),
    );
  }

  /** The text encoders, the first one first. */
  abstract get textEncoders(): readonly CLIPTextModel[];

  /** The text encoders' tokenizers, in their order. */
  abstract get tokenizers(): readonly CLIPTokenizer[];

  /** Tokens that {@link loadTextualInversion} has added. */
  get addedTokens(): readonly string[] {
    return this.#tokens.names;
  }

  /**
   * Lets prompts have a token that textual inversion learned, of one or several vectors, from now on.
   *
   * @param source - A path, the bytes of a file, or vectors as `readTokenEmbedding` gives them: diffusers'
   *   `learned_embeds.safetensors`, A1111's `.pt` or `.safetensors`, SDXL's with `clip_l` and `clip_g`.
   * @param options - `token`: what prompts have; default: what the file says, and where it says nothing the file's name.
   * @returns The token.
   * @throws {FormatError} If the file is none of these, or damaged.
   * @throws {ConfigError} If the token is known already, or the vectors are for other text encoders; nothing is changed then.
   */
  async loadTextualInversion(
    source: string | Uint8Array | TokenEmbedding,
    { token }: { token?: string | undefined } = {},
  ): Promise<string> {
    const isFile = typeof source === "string" || source instanceof Uint8Array;
    const embedding = isFile ? await readTokenEmbedding(source) : source;
    const stem = typeof source === "string" ? /([^/\\]+?)\.[^.]*$/.exec(source)?.[1] : undefined;
    const name = token ?? embedding.token ?? stem;
    if (name === undefined) {
      throw new ConfigError("loadTextualInversion: the data does not say which token it is for; give { token }.");
    }
    await this.inTurn(async () => this.#tokens.add(name, embedding.vectors));
    return name;
  }

  /** Forgets a token. @throws {ConfigError} If there is no such token. */
  unloadTextualInversion(token: string): Promise<void> {
    return this.inTurn(async () => this.#tokens.remove(token));
  }

  /** The model of the first routed adapter among those in use. */
  get fera(): FeRAModel | undefined {
    return this.#adapters.fera;
  }

  /** Names of all loaded adapters. */
  get adapterNames(): readonly string[] {
    return this.#adapters.names;
  }

  /** Names of the adapters in use, each with its scale. */
  get activeAdapters(): ReadonlyMap<string, number> {
    return this.#adapters.active;
  }

  /**
   * Loads adapters and uses them from now on: without a name in place of all others, with one beside those in use.
   *
   * @param source - A path, the bytes of a file, or an adapter as `readAdapter` gives it. Its parts for text encoders
   *   act when prompts are encoded.
   * @returns The adapter as read; its `notes` say what of the file is not used.
   * @throws {ConfigError} If the name is taken.
   * @throws {FormatError} If the file is malformed or made for another model; the adapters in use then stay.
   */
  async loadAdapters(
    source: string | Uint8Array | LoadedAdapter,
    { name }: { name?: string } = {},
  ): Promise<LoadedAdapter> {
    const isFile = typeof source === "string" || source instanceof Uint8Array;
    const loaded = isFile ? await readAdapter(source) : source;
    this.#checkNotFused("loadAdapters", name === undefined ? this.adapterNames : []);
    this.#releaseLater(this.#adapters.add(loaded, typeof source === "string" ? source : ADAPTER_DATA, name));
    return loaded;
  }

  /**
   * Uses a model's adapters in place of all others, for example while it is being trained; `undefined` uses none.
   *
   * @param beside - Adapters of the text encoders that act with them, by the encoder's number.
   * @throws {ConfigError} If they are made for another denoiser than this pipeline's.
   */
  useAdapters(
    model: AdapterModel | undefined,
    beside: { textEncoders?: ReadonlyMap<number, AttachableAdapter> } = {},
  ): void {
    this.#checkNotFused("useAdapters", this.adapterNames);
    this.#releaseLater(this.#adapters.use(model, beside.textEncoders));
  }

  /**
   * Uses these of the loaded adapters, and no others, one after the other at every layer.
   *
   * @param names - One or several.
   * @param scales - How strongly each acts: one number for all, or one each; 0 is not at all, 1 (default) as trained.
   * @throws {ConfigError} If a name is unknown or given twice, or the scales are not finite or not as many.
   */
  setAdapters(names: string | readonly string[], scales: number | readonly number[] = 1): void {
    this.#checkNotFused("setAdapters", listed(names));
    this.#adapters.set(listed(names), scales);
  }

  /**
   * Forgets adapters. Runs that were asked for before keep them.
   *
   * @throws {ConfigError} If a name is unknown or given twice; nothing is changed then.
   */
  deleteAdapters(names: string | readonly string[]): void {
    this.#checkNotFused("deleteAdapters", listed(names));
    this.#releaseLater(this.#adapters.delete(listed(names)));
  }

  /** Leaves all adapters out until {@link enableAdapters}; which ones are in use is kept. */
  disableAdapters(): void {
    this.#adapters.enable(false);
  }

  /** Lets the adapters in use act again. */
  enableAdapters(): void {
    this.#adapters.enable(true);
  }

  /**
   * A factor on every adapter's scale: 0 is not at all, 1 as set. Holds for adapters that are loaded later, too.
   *
   * @throws {ConfigError} If it is not finite.
   */
  setAdapterScale(scale: number): void {
    this.#adapters.setOverallScale(scale);
  }

  /** Goes back to the base model. Runs that were asked for before keep the adapters. */
  unloadAdapters(): void {
    this.useAdapters(undefined);
  }

  /**
   * Adds LoRA, DoRA, LoKr and LoHa to the models' weights, after the runs under way, so that it costs nothing at every step.
   *
   * Until {@link unfuseLora} it is part of the model, and no adapter in use.
   *
   * @param options - Which, and how much of them.
   * @param options.adapterNames - Default: those in use, with their scales.
   * @param options.loraScale - A factor on the scales. Default 1.
   * @throws {ConfigError} If there is none, or one is routed or of another kind that no weight can hold; it is named, and
   *   nothing is changed.
   */
  fuseLora({
    adapterNames,
    loraScale = 1,
  }: {
    adapterNames?: readonly string[];
    loraScale?: number;
  } = {}): Promise<void> {
    return this.inTurn(async () => {
      if (this.#fused) throw new ConfigError("fuseLora: adapters are fused already; call unfuseLora first.");
      if (!Number.isFinite(loraScale)) throw new ConfigError(`fuseLora: loraScale must be finite; got ${loraScale}.`);
      const active = this.activeAdapters;
      const names = adapterNames ?? [...active.keys()];
      if (names.length === 0) throw new ConfigError("fuseLora: no adapter is in use; load one, or name some.");
      const adapters = this.#adapters.get("fuseLora", names).map((adapter, i) => {
        const scale = (active.get(names[i]!) ?? 1) * this.#adapters.overallScale * loraScale;
        return { ...adapter, name: names[i]!, scale };
      });
      const restoreWeights = await fuseInto([this.denoiser, ...this.textEncoders], adapters);
      const others = [...active].filter(([name]) => !names.includes(name));
      this.#adapters.setAll(others);
      const restore = async () => {
        await restoreWeights();
        const fused = [...active].filter(([name]) => names.includes(name));
        this.#adapters.setAll([...fused, ...this.activeAdapters]);
      };
      this.#fused = { names, restore };
    });
  }

  /** Puts the weights back as they were before {@link fuseLora}; what was fused is in use again. */
  unfuseLora(): Promise<void> {
    return this.inTurn(async () => {
      const fused = this.#fused;
      this.#fused = undefined;
      await fused?.restore();
    });
  }

  /** Frees every compiled graph, after the runs under way; they are compiled again when needed. */
  async release(): Promise<void> {
    await this.#queue;
    await Promise.all([this.releaseDenoiser(), this.releaseTextEncoders()]);
  }

  /** Frees the text encoders' compiled graphs. */
  protected async releaseTextEncoders(): Promise<void> {
    await Promise.all(this.textEncoders.map((encoder) => encoder.release()));
  }

  /** Frees the denoiser's compiled graphs, with adapters and without. */
  protected async releaseDenoiser(): Promise<void> {
    await Promise.all([this.denoiser.release(), this.#adapters.release()]);
  }

  /** Frees every compiled graph, at the end of the pipeline's use. */
  dispose(): Promise<void> {
    return this.release();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /** The adapters that act now. @param wanted - False for none; or which ones act on which prompt. */
  protected selectAdapters(wanted?: boolean | PromptAdapters): AdapterSelection {
    return this.#adapters.select(wanted);
  }

  /** Runs something after everything that was asked for before. */
  protected inTurn<T>(run: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(run);
    this.#queue = result.catch(() => undefined);
    return result;
  }

  #releaseLater(models: readonly Releasable[]): void {
    for (const model of models) void this.inTurn(() => model.release()).catch(() => undefined);
  }

  #checkNotFused(where: string, names: readonly string[]): void {
    const fused = names.find((name) => this.#fused?.names.includes(name));
    if (fused === undefined) return;
    throw new ConfigError(`${where}: the adapter "${fused}" is fused into the weights; call unfuseLora first.`);
  }
}

const listed = (names: string | readonly string[]): readonly string[] => (typeof names === "string" ? [names] : names);
