// The kinds of adapters by their names in configurations.

import { ConfigError } from "../errors.js";
import type { Adapter, AdapterConfig } from "./adapter.js";
import { DoRAAdapter } from "./dora/dora-adapter.js";
import { DoRAConfig } from "./dora/dora-config.js";
import { FeRAAdapter } from "./fera/fera-adapter.js";
import { FeRAConfig } from "./fera/fera-config.js";
import { LoHaAdapter } from "./loha/loha-adapter.js";
import { LoHaConfig } from "./loha/loha-config.js";
import { LoKrAdapter } from "./lokr/lokr-adapter.js";
import { LoKrConfig } from "./lokr/lokr-config.js";
import { LoRAAdapter } from "./lora/lora-adapter.js";
import { LoRAConfig } from "./lora/lora-config.js";
import { USUAL_TARGETS } from "./low-rank-config.js";
import { TLoRAAdapter } from "./t-lora/t-lora-adapter.js";
import { TLoRAConfig } from "./t-lora/t-lora-config.js";
import type { LayerMatching, TargetLayer } from "./target-layers.js";

/** A kind of adapter: its configuration from a file, and itself on a model's layers. */
interface AdapterKind {
  fromJSON(json: unknown, source: string): AdapterConfig;
  on(layers: readonly TargetLayer[], config: AdapterConfig): Adapter;
}

const KINDS: Readonly<Record<string, AdapterKind>> = {
  fera: { fromJSON: FeRAConfig.fromJSON, on: (layers, config) => FeRAAdapter.on(layers, config as FeRAConfig) },
  lora: { fromJSON: LoRAConfig.fromJSON, on: (layers, config) => LoRAAdapter.on(layers, config as LoRAConfig) },
  dora: { fromJSON: DoRAConfig.fromJSON, on: (layers, config) => DoRAAdapter.on(layers, config as DoRAConfig) },
  lokr: { fromJSON: LoKrConfig.fromJSON, on: (layers, config) => LoKrAdapter.on(layers, config as LoKrConfig) },
  loha: { fromJSON: LoHaConfig.fromJSON, on: (layers, config) => LoHaAdapter.on(layers, config as LoHaConfig) },
  "t-lora": { fromJSON: TLoRAConfig.fromJSON, on: (layers, config) => TLoRAAdapter.on(layers, config as TLoRAConfig) },
};

/** Names of the kinds. */
export const ADAPTER_TYPES: readonly string[] = Object.keys(KINDS);

/**
 * An adapter on the layers that its configuration names.
 *
 * @throws {ConfigError} If the configuration is of no known kind, or does not fit the layers.
 */
export function createAdapter(config: AdapterConfig, layers: readonly TargetLayer[]): Adapter {
  if (typeof config !== "object" || config === null) {
    throw new ConfigError(
      `adapter: the configuration must be one of a kind, such as LoRAConfig; got ${String(config)}.`,
    );
  }
  return kindOf(config.adapterType, "adapter").on(layers, config);
}

/**
 * A configuration that says nothing of layers, for a model that says which are usual.
 *
 * @param usual - The model's; undefined where it says nothing.
 * @returns The same where it names layers itself, or names them as the reference implementation does.
 */
export function withUsualTargets<Config extends AdapterConfig>(
  config: Config,
  usual: readonly string[] | undefined,
): Config {
  if (!usual || config?.targetModules !== USUAL_TARGETS) return config;
  if ((config as { matching?: LayerMatching }).matching === "name") return config;
  const json = { ...config.toJSON(), target_modules: [...usual] };
  return adapterConfigFromJSON(config.adapterType, json, "targetModules") as Config;
}

/**
 * The configuration that a file has, whichever kind it is of.
 *
 * @throws {ConfigError} If the kind is not known, or an option is not.
 */
export function adapterConfigFromJSON(type: string, json: unknown, source: string): AdapterConfig {
  return kindOf(type, source).fromJSON(json, source);
}

function kindOf(type: string, source: string): AdapterKind {
  const kind = Object.hasOwn(KINDS, type) ? KINDS[type] : undefined;
  if (kind) return kind;
  throw new ConfigError(
    `${source}: the adapter type must be ${Object.keys(KINDS).join(" or ")}; got ${JSON.stringify(type)}.`,
  );
}
