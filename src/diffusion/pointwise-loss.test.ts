import { beforeAll, describe, expect, it } from "vitest";
import { checkGradients, runGraph } from "../../test/support/check-gradients.js";
import { type ObjectiveGolden, objectiveGolden } from "../../test/support/objective-golden.js";
import { relativeError } from "../../test/support/relative-error.js";
import { gradients } from "../autodiff/index.js";
import { Graph } from "../graph/index.js";
import { Generator, randn } from "../tensor/random.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { createObjective } from "./objective.js";
import { type HuberSchedule, LOSS_KINDS, type LossKind, pointwiseLoss } from "./pointwise-loss.js";

const TOLERANCE = 2e-6;

let golden: ObjectiveGolden;
beforeAll(async () => {
  golden = await objectiveGolden();
});

const CASES = (["mse", "l1", "huber", "smooth-l1"] as const).flatMap((kind) =>
  (kind === "mse" || kind === "l1" ? ["constant"] : ["constant", "exponential", "snr"]).flatMap((schedule) =>
    (["plain", "weighted"] as const).map((form) => [kind, schedule as HuberSchedule, form] as const),
  ),
);

describe("losses agree with kohya's in torch: value, each sample's, gradient", () => {
  it.each(CASES)("%s, %s threshold, %s", async (loss, huberSchedule, form) => {
    const { huberC, timesteps, configs } = golden.settings;
    const name = `losses.${loss.replace("-", "_")}.${huberSchedule}.${form}`;
    const [output, target] = [golden.tensor("losses.output"), golden.tensor("losses.target")];
    const objective = createObjective(configs.sd, { loss, huberC, huberSchedule });
    const { huberC: thresholds } = objective.noised(output, target, timesteps);
    const feeds: Record<string, Tensor> = { output, target, ...(thresholds && { huberC: thresholds }) };
    if (thresholds) expect(relativeError(thresholds.data, golden.tensor(`${name}.c`).data)).toBeLessThan(TOLERANCE);
    if (form === "weighted") {
      feeds.lossMask = golden.tensor("losses.mask");
      feeds.lossWeights = golden.tensor("losses.weights");
    }
    const graph = new Graph();
    const inputs = Object.fromEntries(
      Object.entries(feeds).map(([input, { shape }]) => [input, graph.input(input, "float32", shape)]),
    ) as never as Parameters<typeof objective.lossTerms>[0];
    const terms = Object.entries(objective.lossTerms(inputs));
    expect(terms.map(([term]) => term)).toEqual(objective.lossNames);
    const total = terms[0]![1];
    graph.output("loss", total);
    graph.output("samples", objective.sampleLosses!(inputs));
    graph.output("gradient", gradients(total, [inputs.output])[0]!);
    const result = await runGraph(graph, feeds);
    for (const part of ["loss", "samples", "gradient"]) {
      const expected = golden.tensor(`${name}.${part}`).data;
      expect(relativeError(result[part]!.data as Float32Array, expected), part).toBeLessThan(TOLERANCE);
    }
  });
});

describe("gradients are those that finite differences show", () => {
  it.each(LOSS_KINDS.flatMap((kind) => [false, true].map((weighted) => [kind, weighted] as const)))(
    "%s, masked and weighted: %s",
    async (kind: LossKind, weighted) => {
      const generator = new Generator(5);
      const fixed: Record<string, Tensor> = {
        target: randn([2, 2, 3, 3], { generator }),
        huberC: tensor([0.3, 0.9], [2]),
        ...(weighted && {
          lossMask: tensor(
            Array.from({ length: 18 }, (_, i) => (i % 3) / 2),
            [2, 1, 3, 3],
          ),
          lossWeights: tensor([0.5, 2], [2]),
        }),
      };
      await checkGradients({
        inputs: { output: [2, 2, 3, 3] },
        fixed,
        build: (values) => pointwiseLoss(kind).lossTerms(values as never)[pointwiseLoss(kind).lossNames[0]!]!,
      });
    },
  );
});

it("a sample of weight 0 and places outside a mask have no gradient", async () => {
  const graph = new Graph();
  const shapes = { output: [2, 1, 2, 2], target: [2, 1, 2, 2], lossMask: [2, 1, 2, 2], lossWeights: [2] };
  const inputs = Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => [name, graph.input(name, "float32", shape)]),
  ) as never as Parameters<ReturnType<typeof pointwiseLoss>["lossTerms"]>[0];
  const { mse } = pointwiseLoss().lossTerms(inputs);
  graph.output("gradient", gradients(mse!, [inputs.output])[0]!);
  const { gradient } = await runGraph(graph, {
    output: tensor([1, 1, 1, 1, 1, 1, 1, 1], [2, 1, 2, 2]),
    target: tensor([0, 0, 0, 0, 0, 0, 0, 0], [2, 1, 2, 2]),
    lossMask: tensor([1, 0, 0, 0.5, 1, 1, 1, 1], [2, 1, 2, 2]),
    lossWeights: tensor([1, 0], [2]),
  });
  // 2 d m w / (C H W B)
  expect(Array.from(gradient!.data as Float32Array)).toEqual([0.25, 0, 0, 0.125, 0, 0, 0, 0]);
});
