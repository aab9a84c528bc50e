// ONNX forms of rotary position embedding.

import type { Value } from "../graph/graph.js";
import { tensor } from "../tensor/tensor.js";
import { emit, type Lowering, produce, produceReshaped, reshaped, reshapedName } from "./lowering-context.js";

/**
 * CPU: `com.microsoft.RotaryEmbedding`, which takes the rows of cos and sin from position 0 on. Elsewhere the products with
 * cos and sin of the two sides of all pairs.
 */
export const lowerRotary: Lowering<"Rotary"> = (node, context) => {
  const [x, cos, sin] = node.inputs as [Value, Value, Value];
  const { heads, pairs } = node.attributes;
  const [output] = node.outputs as [Value];
  const { builder } = context;
  const isAdjacent = pairs === "adjacent";
  if (context.target === "cpu") {
    const first = builder.constant(tensor([0], [1], "int64"));
    const attributes = { num_heads: { int: heads }, interleaved: { int: +isAdjacent } };
    const inputs = [context.name(x), first, context.name(cos), context.name(sin)];
    produce(context, output, "RotaryEmbedding", inputs, attributes, "com.microsoft");
    return;
  }
  const [batch, tokens, features] = x.shape as [number, number, number];
  const half = features / heads / 2;
  const sides = isAdjacent ? [batch, tokens, heads, half, 2] : [batch, tokens, heads, 2, half];
  const axis = isAdjacent ? 4 : 3;
  const parts = builder.emit("Split", [reshaped(context, x, sides)], {
    attributes: { axis: { int: axis }, num_outputs: { int: 2 } },
    outputs: [builder.fresh("side"), builder.fresh("side")],
  });
  const [a, b] = parts as [string, string];
  const angles = isAdjacent ? [tokens, 1, half, 1] : [tokens, 1, 1, half];
  const [c, s] = [cos, sin].map((value) => reshapedName(context, context.name(value), angles)) as [string, string];
  const product = (side: string, by: string) => emit(context, "Mul", [side, by]);
  const turnedA = emit(context, "Sub", [product(a, c), product(b, s)]);
  const turnedB = emit(context, "Add", [product(a, s), product(b, c)]);
  produceReshaped(context, output, emit(context, "Concat", [turnedA, turnedB], { axis: { int: axis } }));
};
