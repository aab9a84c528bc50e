// The adapters that a pipeline uses: none, a file's, or those of a model that is being trained.

import { FeRAModel } from "../adapters/fera/fera-model.js";
import { ConfigError } from "../errors.js";
import type { UNet2DConditionModel } from "../models/unet-2d-condition/unet-2d-condition.js";
import type { DenoiseOptions } from "./denoise.js";

/** Holds at most one {@link FeRAModel}; those that it loaded itself are given back to be released. */
export class AdapterSlot {
  readonly #unet: UNet2DConditionModel;
  #fera: FeRAModel | undefined;
  #ownsFera = false;
  #scale = 1;

  constructor(unet: UNet2DConditionModel) {
    this.#unet = unet;
  }

  get fera(): FeRAModel | undefined {
    return this.#fera;
  }

  /** @throws {ConfigError} If it is not finite. */
  setScale(scale: number): void {
    if (!Number.isFinite(scale)) throw new ConfigError(`setAdapterScale: the scale must be finite; got ${scale}.`);
    this.#scale = scale;
  }

  /**
   * Takes a file's adapters.
   *
   * @returns What is to be released, once the runs that use it are over.
   * @throws {FormatError} If the file is malformed or made for another model; nothing is changed then.
   */
  async load(path: string): Promise<FeRAModel | undefined> {
    const fera = new FeRAModel(this.#unet);
    await fera.loadAdapters(path);
    return this.#put(fera, true);
  }

  /**
   * Takes a model's adapters, or none.
   *
   * @returns As {@link load}.
   * @throws {ConfigError} If they are made for another UNet.
   */
  use(fera: FeRAModel | undefined): FeRAModel | undefined {
    if (fera && fera.model !== this.#unet) {
      throw new ConfigError("useAdapters: the FeRAModel must be made around this pipeline's own unet.");
    }
    return fera === this.#fera ? undefined : this.#put(fera, false);
  }

  /** The UNet, with the adapters as they are now unless they are left out. */
  predictor(adapters: boolean): DenoiseOptions["predict"] {
    const fera = adapters ? this.#fera : undefined;
    const adapterScale = this.#scale;
    if (fera) return (inputs) => fera.predictWithRoute({ ...inputs, adapterScale });
    return async (inputs) => ({ output: await this.#unet.predict(inputs) });
  }

  #put(next: FeRAModel | undefined, owned: boolean): FeRAModel | undefined {
    const previous = this.#ownsFera ? this.#fera : undefined;
    this.#fera = next;
    this.#ownsFera = owned;
    return previous;
  }
}
