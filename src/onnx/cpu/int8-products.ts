// Products and convolutions by weights that are kept as 8-bit integers, with the other factor quantized when the graph runs:
// 8 bits without sign over its own range. ONNX Runtime makes them of integers (VNNI, AMX), the scales are applied to the sums.

import { type FileRange, type Int8Matrices, type Node, rangeOfRows, type Value } from "../../graph/graph.js";
import { tensor } from "../../tensor/tensor.js";
import { emit, type LoweringContext, produce, produceReshaped, reshapedName, rowsOf } from "../lowering-context.js";

const MICROSOFT = "com.microsoft";

/** The integers of a weight; undefined of any other value, and for devices whose kernels take none. */
export function int8Of(context: Pick<LoweringContext, "target">, value: Value): Int8Matrices | undefined {
  const { source } = value;
  if (context.target !== "cpu" || source.kind !== "file") return undefined;
  const { stored } = source.range;
  return typeof stored === "object" && stored.type === "int8" ? stored : undefined;
}

/** x · wᵀ + bias over the last axis. @returns Whether it was written. */
export function int8Linear(node: Node<"Linear">, context: LoweringContext): boolean {
  const [x, weight, bias] = node.inputs as [Value, Value, Value | undefined];
  const stored = int8Of(context, weight);
  if (!stored) return false;
  const [output] = node.outputs as [Value];
  if (stored.blocks > 1) {
    const integers = quantized(context, context.name(x));
    const size = weight.shape[0]! / stored.blocks;
    const parts = Array.from({ length: stored.blocks }, (_, block) => {
      const [start, end] = [block * size, (block + 1) * size];
      const part = bias && rowsOf(context, bias, start, end, [size]);
      return multiply(context, integers, forwardRows(weight, start, end, context), { bias: part });
    });
    produce(context, output, "Concat", parts, { axis: { int: -1 } });
    return true;
  }
  const name = context.nameFor(output);
  multiply(context, quantized(context, context.name(x)), matrix(context, weight, "forward"), {
    bias: bias && context.name(bias),
    output: name,
  });
  context.named(output, name);
  return true;
}

/**
 * A product with a weight on either side: the gradient of a linear layer's input, and 1×1 convolutions with theirs, which
 * have the weight on the left.
 *
 * @returns Whether it was written.
 */
export function int8MatMul(node: Node<"MatMul">, context: LoweringContext): boolean {
  const [a, b] = node.inputs as [Value, Value];
  const { transposeA, transposeB } = node.attributes;
  const [output] = node.outputs as [Value];
  if (int8Of(context, b) && !transposeA && b.rank === 2) {
    if (transposeB && int8Of(context, b)!.blocks !== 1) return false;
    const name = context.nameFor(output);
    const side = transposeB ? "forward" : "gradient";
    multiply(context, quantized(context, context.name(a)), matrix(context, b, side), { output: name });
    context.named(output, name);
    return true;
  }
  const stored = int8Of(context, a);
  if (!stored || transposeB || a.rank !== 2 || b.rank !== 3 || (!transposeA && stored.blocks !== 1)) return false;
  const pixelsLast = { perm: { ints: [0, 2, 1] } };
  const image = quantized(context, context.name(b));
  const rows = { ...image, name: emit(context, "Transpose", [image.name], pixelsLast) };
  const product = multiply(context, rows, matrix(context, a, transposeA ? "gradient" : "forward"));
  produce(context, output, "Transpose", [product], pixelsLast);
  return true;
}

/** A convolution as a product with its unfolded image. @returns Whether it was written. */
export function int8Conv(node: Node<"Conv">, context: LoweringContext): boolean {
  const [x, weight, bias] = node.inputs as [Value, Value, Value | undefined];
  if (int8Of(context, weight)?.blocks !== 1) return false;
  const { stride, padding } = node.attributes;
  const kernel = weight.shape.slice(2) as [number, number];
  const unfolded = unfold(context, x, node.outputs[0]!.shape, kernel, {
    key: `forward ${stride} ${padding}`,
    source: (at, tap, axis) => at * stride + tap - padding[axis]!,
  });
  const product = multiply(context, unfolded, matrix(context, weight, "forward"), {
    bias: bias && context.name(bias),
  });
  channelsFirst(context, node.outputs[0]!, product);
  return true;
}

/** The gradient of a convolution's image, as a product with the unfolded gradient of its output. @returns Whether it was written. */
export function int8ConvInputGradient(node: Node<"ConvInputGradient">, context: LoweringContext): boolean {
  const [dy, weight] = node.inputs as [Value, Value];
  if (!int8Of(context, weight)) return false;
  const { stride, padding } = node.attributes;
  const kernel = weight.shape.slice(2) as [number, number];
  // dx[i] sums dy[j] · w[tap] over i = j · stride + tap − padding; the gradient's matrix has its taps in reverse.
  const unfolded = unfold(context, dy, node.outputs[0]!.shape, kernel, {
    key: `gradient ${stride} ${padding}`,
    source: (at, tap, axis) => (at + padding[axis]! - (kernel[axis]! - 1 - tap)) / stride,
  });
  const product = multiply(context, unfolded, matrix(context, weight, "gradient"));
  channelsFirst(context, node.outputs[0]!, product);
  return true;
}

/** A quantized tensor: its integers, and the names of its scale and its zero point. */
interface Quantized {
  name: string;
  scale: string;
  zeroPoint: string;
}

/** The same tensor is quantized once for all layers that take it. */
function quantized(context: LoweringContext, x: string): Quantized {
  const parts = (name: string): Quantized => ({ name, scale: `${name}_scale`, zeroPoint: `${name}_zero` });
  const name = context.oncePerPhase(`quantized ${x}`, () => {
    const { name, scale, zeroPoint } = parts(context.builder.fresh("quantized"));
    return context.builder.emit("DynamicQuantizeLinear", [x], { outputs: [name, scale, zeroPoint] })[0]!;
  });
  return parts(name);
}

/** A matrix of integers and the scales of its columns, by name. */
interface Int8Matrix {
  name: string;
  scale: string;
}

function matrix(context: LoweringContext, weight: Value, side: "forward" | "gradient"): Int8Matrix {
  const { source } = weight;
  const stored = int8Of(context, weight);
  if (source.kind !== "file" || !stored) throw new Error(`${weight} is no weight of integers.`);
  const { stored: _, ...forward } = source.range;
  const [range, scale] = side === "forward" ? [forward, stored.scale] : [stored.gradient, stored.gradientScale];
  return matrixOf(context, `${source.name}:${side}`, range, scale);
}

/** The forward matrix of a block of rows. */
function forwardRows(weight: Value, start: number, end: number, context: LoweringContext): Int8Matrix {
  const { source } = weight;
  if (source.kind !== "file") throw new Error(`${weight} is no weight of integers.`);
  const { stored, ...range } = rangeOfRows(source.range, weight.shape[0]!, start, end);
  return matrixOf(context, `${source.name}:${start}-${end}:forward`, range, (stored as Int8Matrices).scale);
}

function matrixOf(context: LoweringContext, name: string, range: FileRange, scale: FileRange): Int8Matrix {
  const columns = scale.length / 4;
  return {
    name: context.builder.file(name, "int8", [range.length / columns, columns], range),
    scale: context.builder.file(`${name} scale`, "float32", [columns], scale),
  };
}

function multiply(
  { builder }: LoweringContext,
  x: Quantized,
  weight: Int8Matrix,
  { bias, output }: { bias?: string | undefined; output?: string } = {},
): string {
  const inputs = [x.name, weight.name, x.scale, weight.scale, x.zeroPoint];
  if (bias !== undefined) inputs.push("", bias);
  const outputs = output === undefined ? undefined : [output];
  return builder.emit("MatMulIntegerToFloat", inputs, { outputs, domain: MICROSOFT })[0]!;
}

/** Where a pixel of the result finds the pixel that a tap reads, along one axis; no integer, or outside, where there is none. */
interface Window {
  /** Tells windows apart. */
  key: string;
  source: (at: number, tap: number, axis: 0 | 1) => number;
}

/**
 * The pixels that each tap reads for each pixel of the result, side by side: `[B · H' · W', kH · kW · C]`. What lies outside of
 * the image is a row of zeros after all pixels.
 */
function unfold(
  context: LoweringContext,
  image: Value,
  [, , height, width]: readonly number[],
  [kernelHeight, kernelWidth]: readonly [number, number],
  { key, source }: Window,
): Quantized {
  const { builder } = context;
  const [batch, channels, rows, columns] = image.shape as [number, number, number, number];
  const pixels = rows * columns;
  const whole = quantized(context, context.name(image));
  const flat = reshapedName(context, whole.name, [batch, channels, pixels]);
  const pixelRows = emit(context, "Transpose", [flat], { perm: { ints: [0, 2, 1] } });
  const zero = emit(context, "Expand", [whole.zeroPoint, builder.shape([1, channels])]);
  const table = emit(context, "Concat", [reshapedName(context, pixelRows, [batch * pixels, channels]), zero], {
    axis: { int: 0 },
  });
  const size = [batch, height!, width!, kernelHeight, kernelWidth] as const;
  const inside = (at: number, count: number) => Number.isInteger(at) && at >= 0 && at < count;
  const indices = new Int32Array(size.reduce((a, b) => a * b));
  let next = 0;
  for (let sample = 0; sample < batch; sample++) {
    for (let y = 0; y < height!; y++) {
      for (let x = 0; x < width!; x++) {
        for (let tapY = 0; tapY < kernelHeight; tapY++) {
          for (let tapX = 0; tapX < kernelWidth; tapX++) {
            const [fromY, fromX] = [source(y, tapY, 0), source(x, tapX, 1)];
            const isInside = inside(fromY, rows) && inside(fromX, columns);
            indices[next++] = isInside ? (sample * rows + fromY) * columns + fromX : batch * pixels;
          }
        }
      }
    }
  }
  const constant = builder.constant(tensor(indices, [next]), `unfold ${key} ${size} ${rows}×${columns}`);
  const gathered = emit(context, "Gather", [table, constant], { axis: { int: 0 } });
  const taps = kernelHeight * kernelWidth;
  return { ...whole, name: reshapedName(context, gathered, [next / taps, taps * channels]) };
}

/** Makes `output`, `[B, C, H, W]`, of its pixels' rows `[B · H · W, C]`. */
function channelsFirst(context: LoweringContext, output: Value, product: string): void {
  const [batch, channels, height, width] = output.shape as [number, number, number, number];
  const rows = reshapedName(context, product, [batch, height * width, channels]);
  produceReshaped(context, output, emit(context, "Transpose", [rows], { perm: { ints: [0, 2, 1] } }));
}
