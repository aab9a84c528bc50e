import { describe, expect, it } from "vitest";
import { ConfigError } from "../../errors.js";
import { FeRAConfig, type FeRAOptions } from "./fera-config.js";

describe("FeRAConfig", () => {
  it("has the published defaults", () => {
    expect(new FeRAConfig().toJSON()).toEqual({
      rank: 4,
      alpha: 1,
      dropout: 0,
      num_bands: 3,
      num_experts: 3,
      router_tau: 0.7,
      target_modules: ["to_q", "to_k", "to_v", "to_out.0"],
      fecl_weight: 0.1,
      bands: "reference",
      sigma: { rule: "reference" },
      matching: "path",
    });
  });

  it("matches by name in the reference's behaviour", () => {
    expect(FeRAConfig.reference({ rank: 8 })).toMatchObject({ rank: 8, bands: "reference", matching: "name" });
  });

  it("comes back from JSON", () => {
    const config = new FeRAConfig({ rank: 2, sigma: { rule: "latent", divisor: 8 }, bands: "complete", alpha: 0.5 });
    expect(FeRAConfig.fromJSON(JSON.parse(JSON.stringify(config)))).toEqual(config);
  });

  it("copies with changes", () => {
    expect(new FeRAConfig({ rank: 2, alpha: 3 }).with({ rank: 5 })).toMatchObject({ rank: 5, alpha: 3 });
  });

  const bad: [FeRAOptions, RegExp][] = [
    [{ rank: 0 }, /rank: .*>=1; got 0/],
    [{ rank: 1.5 }, /rank: .*got 1.5/],
    [{ alpha: 0 }, /alpha: .*got 0/],
    [{ dropout: 1 }, /dropout: .*<1; got 1/],
    [{ numBands: 100 }, /numBands: .*<=16; got 100/],
    [{ routerTau: Number.NaN }, /routerTau: /],
    [{ targetModules: [] }, /targetModules: .*got \[\]/],
    [{ feclWeight: -1 }, /feclWeight: .*got -1/],
    [{ bands: "some" as "complete" }, /bands: .*got "some"/],
    [{ sigma: { rule: "latent", divisor: 0 } }, /sigma.divisor: .*got 0/],
    [{ sigma: { rule: "other" } as never }, /sigma.rule: /],
    [{ rnak: 3 } as FeRAOptions, /unsupported option rnak=3/],
  ];
  for (const [options, message] of bad) {
    it(`refuses ${JSON.stringify(options)}`, () => {
      expect(() => new FeRAConfig(options)).toThrow(ConfigError);
      expect(() => new FeRAConfig(options)).toThrow(message);
    });
  }

  it("names a file's option as the file does", () => {
    expect(() => FeRAConfig.fromJSON({ num_bands: 0 }, "a.json")).toThrow(/^a\.json: num_bands: .*got 0/);
    expect(() => FeRAConfig.fromJSON({ numBands: 3 }, "a.json")).toThrow(/unsupported option numBands=3/);
    expect(() => FeRAConfig.fromJSON(null, "a.json")).toThrow(/must be an object; got null/);
    expect(() => FeRAConfig.fromJSON([1], "a.json")).toThrow(/must be an object/);
  });
});
