// Where do transformed convolutions pay? Each shape as the library lowers it for the CPU, beside ONNX Runtime's own operator,
// forward and backward, in turns.

import { formatTable } from "../src/cli/format.js";
import * as ops from "../src/graph/index.js";
import { convInputGradient, Graph } from "../src/graph/index.js";
import { lower, type Target } from "../src/onnx/index.js";
import { onnxRuntime as ort } from "../src/runtime/onnxruntime.js";
import { Generator, randn } from "../src/tensor/random.js";
import { formatRatio, formatSeconds, median } from "./statistics.js";

/** A 3×3 convolution of stride 1. */
interface Shape {
  batch: number;
  channels: number;
  out: number;
  size: number;
}

/** Seconds of both ways; the library's own choice may be the plain operator. */
interface Comparison extends Shape {
  direction: "forward" | "gradient";
  isTransformed: boolean;
  plainSeconds: number;
  chosenSeconds: number;
}

/** Levels of Stable Diffusion 1.5 at 64×64 latents, and of the embedded model. */
const SHAPES: readonly Shape[] = [
  { batch: 1, channels: 320, out: 320, size: 64 },
  { batch: 1, channels: 960, out: 320, size: 64 },
  { batch: 1, channels: 640, out: 640, size: 32 },
  { batch: 1, channels: 1920, out: 640, size: 32 },
  { batch: 1, channels: 1280, out: 1280, size: 16 },
  { batch: 1, channels: 2560, out: 1280, size: 16 },
  { batch: 1, channels: 1280, out: 1280, size: 8 },
  { batch: 2, channels: 1280, out: 1280, size: 16 },
  { batch: 8, channels: 64, out: 64, size: 32 },
  { batch: 8, channels: 128, out: 128, size: 16 },
];

/** Measures in this process. @param rounds - Runs of each way, taken in turns. */
export async function measureConvolutions(threads: number, rounds: number): Promise<Comparison[]> {
  const comparisons: Comparison[] = [];
  for (const shape of SHAPES) {
    for (const direction of ["forward", "gradient"] as const) {
      const chosen = await prepare(shape, direction, "cpu", threads);
      const plain = await prepare(shape, direction, "portable", threads);
      const samples = { plain: [] as number[], chosen: [] as number[] };
      for (let i = 0; i <= rounds; i++) {
        const times = { plain: await plain.seconds(), chosen: await chosen.seconds() };
        // The first runs bring memory in.
        if (i === 0) continue;
        samples.plain.push(times.plain);
        samples.chosen.push(times.chosen);
      }
      await plain.release();
      await chosen.release();
      comparisons.push({
        ...shape,
        direction,
        isTransformed: chosen.isTransformed,
        plainSeconds: median(samples.plain),
        chosenSeconds: median(samples.chosen),
      });
    }
  }
  return comparisons;
}

/** The comparisons as lines for the terminal. */
export function convolutionTable(comparisons: readonly Comparison[]): string[] {
  return formatTable([
    ["convolution", "direction", "plain", "transformed", "times as fast"],
    ...comparisons.map(({ batch, channels, out, size, direction, isTransformed, plainSeconds, chosenSeconds }) => [
      `${batch}×${channels}→${out} at ${size}×${size}`,
      direction,
      formatSeconds(plainSeconds),
      isTransformed ? formatSeconds(chosenSeconds) : "not chosen",
      isTransformed ? formatRatio(plainSeconds / chosenSeconds) : "",
    ]),
  ]);
}

async function prepare({ batch, channels, out, size }: Shape, direction: string, target: Target, threads: number) {
  const graph = new Graph();
  const generator = new Generator(0);
  const weight = graph.constant(randn([out, channels, 3, 3], { generator }));
  const given = randn([batch, direction === "forward" ? channels : out, size, size], { generator });
  const x = graph.input("x", "float32", given.shape);
  const y =
    direction === "forward"
      ? ops.conv(x, weight, undefined, { padding: 1 })
      : convInputGradient(x, weight, { stride: 1, padding: [1, 1, 1, 1] }, [batch, channels, size, size]);
  // A single number, so that nothing large is copied out.
  graph.output("mean", ops.reduceMean(y));
  const { bytes } = lower(graph, target);
  const session = await ort.InferenceSession.create(bytes, {
    graphOptimizationLevel: "disabled",
    enableMemPattern: false,
    intraOpNumThreads: threads,
    // Two sessions in turns: the idle one's threads must not spin.
    extra: { session: { disable_prepacking: "1", "intra_op.allow_spinning": "0" } },
  });
  const feeds = { x: new ort.Tensor("float32", given.data, given.shape) };
  return {
    isTransformed: new TextDecoder("latin1").decode(bytes).includes("winograd"),
    async seconds() {
      const startedAt = performance.now();
      await session.run(feeds);
      return (performance.now() - startedAt) / 1000;
    },
    release: () => session.release(),
  };
}
