import { describe, expect, it } from "vitest";
import { FeRAConfig, LoRAConfig } from "../../adapters/index.js";
import {
  ADAPTER_OPTIONS,
  type AdapterOptionValues,
  toAdapterConfig,
  toFeRAConfig,
  UNTOLD_OPTIONS,
} from "./adapter-options.js";
import type { OptionSpecs } from "./option.js";

const defaultsOf = (specs: OptionSpecs) =>
  Object.fromEntries(Object.entries(specs).map(([name, { defaultValue }]) => [name, defaultValue]));
const made = (given: Partial<AdapterOptionValues>) =>
  toAdapterConfig({ ...(defaultsOf(ADAPTER_OPTIONS) as AdapterOptionValues), ...given });

describe("an adapter's options", () => {
  it("give FeRA the scale of a LoRA of its size, and no consistency loss, where nothing is said", () => {
    expect(made({ adapter: "lora", rank: 12 })).toMatchObject({ rank: 12, alpha: 12 });
    for (const [rank, numExperts] of [
      [4, 3],
      [8, 2],
      [12, 1],
    ] as const) {
      const config = made({ adapter: "fera", rank, numExperts }) as FeRAConfig;
      expect(config).toMatchObject({ rank, numExperts, alpha: rank * numExperts, feclWeight: 0 });
      expect(config.alpha / config.rank / numExperts).toBe(1);
    }
  });

  it("leave what is published as it is, in code and for files that tell nothing", () => {
    expect(new FeRAConfig()).toMatchObject({ rank: 4, alpha: 1, feclWeight: 0.1, bands: "reference" });
    expect(toFeRAConfig(defaultsOf(UNTOLD_OPTIONS))).toEqual(new FeRAConfig());
    expect(made({ adapter: "fera", alpha: 1, feclWeight: 0.1 })).toEqual(new FeRAConfig());
  });

  it("refuse those of another kind", () => {
    expect(() => made({ adapter: "lora", feclWeight: 0.1 })).toThrow(
      /feclWeight: the adapter "lora" has no such option/,
    );
    expect(made({ adapter: "lora" })).toBeInstanceOf(LoRAConfig);
  });
});
