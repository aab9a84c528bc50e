import { expect, it } from "vitest";
import { FeRAAdapter } from "../fera-adapter.js";
import { FeRAConfig } from "../fera-config.js";
import { blockOf } from "./block-router.js";

const layer = (path: string) => ({ path, kind: "linear" as const, inFeatures: 8, outFeatures: 8, kernelSize: 1 });

it("knows a layer's block by its path", () => {
  const blocks = ["down_blocks.0.resnets.0", "down_blocks.1.attentions.0", "mid_block.x", "up_blocks.2.y", "conv_in"];
  expect(blocks.map(blockOf)).toEqual([0, 1, 4, 7, undefined]);
});

it("refuses a model that has no such blocks", () => {
  const config = new FeRAConfig({ router: "energies-by-block", rank: 2, targetModules: ["to_q"] });
  expect(FeRAAdapter.on([layer("up_blocks.0.to_q")], config).shapes.get("router.block.weight")).toEqual([27, 64]);
  expect(() => FeRAAdapter.on([layer("transformer_blocks.0.to_q")], config)).toThrow(
    'router "energies-by-block": needs a UNet, whose layers lie in down_blocks, mid_block and up_blocks',
  );
});
