// The options of DoRA: LoRA's, under the same names.

import type { AdapterConfig } from "../adapter.js";
import { LoRAConfig, type LoRAOptions } from "../lora/lora-config.js";

/** A complete, checked configuration; immutable. */
export class DoRAConfig implements AdapterConfig {
  readonly adapterType = "dora";
  /** Of the low-rank products. */
  readonly lora: LoRAConfig;

  /** @throws {ConfigError} As {@link LoRAConfig}. */
  constructor(options: LoRAConfig | LoRAOptions = {}) {
    this.lora = options instanceof LoRAConfig ? options : new LoRAConfig(options);
  }

  /** Reads what {@link toJSON} gives. @throws {ConfigError} As {@link LoRAConfig.fromJSON}. */
  static fromJSON(json: unknown, source = "DoRAConfig.fromJSON"): DoRAConfig {
    return new DoRAConfig(LoRAConfig.fromJSON(json, source));
  }

  get targetModules(): readonly string[] | string {
    return this.lora.targetModules;
  }

  get dropout(): number {
    return this.lora.dropout;
  }

  toJSON(): Record<string, unknown> {
    return this.lora.toJSON();
  }
}
