// ONNX forms of attention and of its gradient.

import type { Value } from "../graph/graph.js";
import { sizeOf, tensor } from "../tensor/tensor.js";
import { fallsOnOneSet } from "./cpu/linear-products.js";
import {
  cutAxis,
  emit,
  emitMatMul,
  type Lowering,
  type LoweringContext,
  produce,
  produceReshaped,
  reshaped,
  reshapedName,
  type Target,
  waitFor,
} from "./lowering-context.js";

/**
 * Largest block of probabilities that the gradient holds at a time, in elements. On the CPU 16 MB, and two or three such
 * blocks exist at once: about a last-level cache. A GPU wants long kernels instead.
 */
const BLOCK_ELEMENTS: Readonly<Record<Target, number>> = { cpu: 1 << 22, portable: 1 << 24 };
/** Fewer queries would leave the products over them short. */
const QUERIES_PER_BLOCK = 512;
/** Keys added where rows of scores would conflict in the processor's cache. */
const ADDED_KEYS = 16;
/** Probabilities worth three nodes that order their use, in elements (4 MB). */
const ORDERED_ELEMENTS = 1 << 20;
const MASKED = -1e30;

/**
 * CPU: `com.microsoft.MultiHeadAttention`, which never stores the probabilities. Elsewhere and for causal attention
 * plain MatMul, Softmax, MatMul: on WebGPU, MultiHeadAttention of ONNX Runtime 1.2x gave wrong numbers from 32 tokens on.
 */
export const lowerAttention: Lowering<"Attention"> = (node, context) => {
  const [q, k, v] = node.inputs as [Value, Value, Value];
  const { heads, scale, causal } = node.attributes;
  const output = node.outputs[0]!;
  if (context.target === "cpu" && !causal) {
    const attributes = { num_heads: { int: heads }, scale: { float: scale } };
    produce(context, output, "MultiHeadAttention", [q, k, v].map(context.name), attributes, "com.microsoft");
    return;
  }
  const [batch, queries, features] = q.shape as [number, number, number];
  const [q3, k3, v3] = [q, k, v].map((value) => splitHeads(context, value, heads)) as [string, string, string];
  const mask = causal ? causalMask(context, 0, queries, queries) : undefined;
  const p = probabilities(context, q3, scaledKeys(context, k3, scale), mask);
  const merged = emitMatMul(context, { name: p, rank: 3 }, { name: v3, rank: 3 });
  mergeHeads(context, merged, [batch, queries, features], heads, output);
};

/**
 * D = rowsum(dO∘O), P = softmax(scale·q kᵀ), dS = P∘(dO vᵀ − D), dq = scale·dS k, dkᵀ = scale·qᵀ dS, dvᵀ = dOᵀ P,
 * recomputing P block by block: at most BLOCK_ELEMENTS of it exist at a time. dP − D (centred dP), with dP = dO vᵀ, is one product, [dO, −D]·[v, 1]ᵀ;
 * dk and dv are made transposed, since a product is slower where its large factor must be transposed.
 *
 * Rows of scores that all fall on one set of the processor's cache are padded with keys and values of zeros that no
 * query sees: [q, 1]·[k, mask]ᵀ.
 *
 * Each block waits for the results of the one before, and the first result used for the others of the last block: a
 * search for dq alone would otherwise make all blocks' dS before the first dk.
 */
export const lowerAttentionGradient: Lowering<"AttentionGradient"> = (node, context) => {
  const [q, k, v, o, dO] = node.inputs as [Value, Value, Value, Value, Value];
  const { heads, scale, causal } = node.attributes;
  const [batch, queries, features] = q.shape as [number, number, number];
  const keys = k.shape[1]!;
  const rows = batch * heads;
  const width = features / heads;
  const { rowStep, queryStep } = blockSize(rows, queries, keys, context.target);
  const addedKeys = context.target === "cpu" && fallsOnOneSet(keys) ? ADDED_KEYS : 0;
  const used = node.outputs.map(context.isUsed);
  const [needsQ, needsK, needsV] = used as [boolean, boolean, boolean];
  const needsScores = needsQ || needsK;

  const rowParts = (name: string) => divide(context, name, 0, rows, rowStep);
  const queryParts = (name: string, axis: number) => divide(context, name, axis, queries, queryStep);
  const headed = (value: Value) => splitHeads(context, value, heads);
  const transposed = (value: Value) => splitHeadsTransposed(context, value, heads);
  const padded = (name: string) => (addedKeys === 0 ? name : padRows(context, name, addedKeys));
  const { name: scaledK, alpha } = scaledKeys(context, padded(headed(k)), scale);
  const scoring = scoreFactors(context, headed(q), scaledK, [rows, queries, keys, width, addedKeys]);
  const kParts = rowParts(scaledK);
  const scoringK = scoring.k === scaledK ? kParts : rowParts(scoring.k);
  const scoringQ = rowParts(scoring.q);
  const qTransposed = needsK ? rowParts(transposed(q)) : [];
  const dOTransposed = needsV ? rowParts(transposed(dO)) : [];
  const tail = tailWidth(width, context.target);
  const vParts = needsScores ? rowParts(withOnes(context, padded(headed(v)), [rows, keys + addedKeys, tail])) : [];
  const dOParts = needsScores ? rowParts(withRowSums(context, headed(dO), headed(o), tail)) : [];

  const parts: [string[], string[], string[]] = [[], [], []];
  let previous: string[] = [];
  kParts.forEach((keyRows, part) => {
    const rowCount = Math.min(rowStep, rows - part * rowStep);
    const qBlocks = queryParts(scoringQ[part]!, 1);
    const qTransposedBlocks = needsK ? queryParts(qTransposed[part]!, 2) : [];
    const dOTransposedBlocks = needsV ? queryParts(dOTransposed[part]!, 2) : [];
    const dOBlocks = needsScores ? queryParts(dOParts[part]!, 1) : [];
    const dqs: string[] = [];
    let dk: string | undefined;
    let dv: string | undefined;
    qBlocks.forEach((cut, block) => {
      const start = block * queryStep;
      const end = Math.min(queries, start + queryStep);
      const shape = [rowCount, end - start, scoring.width];
      const waiting = previous.length === 0 ? cut : waitFor(context, { name: cut, dtype: q.dtype, shape }, previous);
      const mask = causal ? causalMask(context, start, end, keys + addedKeys) : undefined;
      // Before p in the file, thus after it in the search: else every block's centred dP would be made before the first p.
      const centredDP = needsScores
        ? emitMatMul(context, matrix(dOBlocks[block]!), matrix(vParts[part]!), { transposeB: true })
        : undefined;
      const p = probabilities(context, waiting, { name: scoringK[part]!, alpha }, mask);
      const made: string[] = [];
      if (needsV) {
        dv = sum(context, dv, emitMatMul(context, matrix(dOTransposedBlocks[block]!), matrix(p)));
        made.push(dv);
      }
      if (centredDP !== undefined) {
        const dS = matrix(emit(context, "Mul", [p, centredDP]));
        if (needsK) {
          dk = sum(context, dk, emitMatMul(context, matrix(qTransposedBlocks[block]!), dS, { alpha: scale }));
          made.push(dk);
        }
        if (needsQ) {
          dqs.push(emitMatMul(context, dS, matrix(keyRows), { alpha }));
          made.push(dqs.at(-1)!);
        }
      }
      previous = made;
    });
    if (needsQ) parts[0].push(join(context, dqs, 1));
    if (dk !== undefined) parts[1].push(dk);
    if (dv !== undefined) parts[2].push(dv);
  });
  const isOrdered = previous.length > 1 && rows * queries * keys >= ORDERED_ELEMENTS;
  node.outputs.forEach((output, i) => {
    if (!used[i]) return;
    const shape = i === 0 ? [rows, queries, width] : [rows, width, keys];
    const made = join(context, parts[i]!, 0);
    const all = i > 0 && addedKeys > 0 ? cutAxis(context, made, 2, 0, keys) : made;
    const whole = isOrdered ? waitFor(context, { name: all, dtype: output.dtype, shape }, previous) : all;
    mergeHeads(context, whole, output.shape as [number, number, number], heads, output, i > 0);
  });
};

/** How many rows (heads of all samples) and queries a block takes. */
function blockSize(rows: number, queries: number, keys: number, target: Target) {
  const elements = BLOCK_ELEMENTS[target];
  if (rows * queries * keys <= elements) return { rowStep: rows, queryStep: queries };
  const atLeast = Math.min(queries, QUERIES_PER_BLOCK);
  const rowStep = Math.min(rows, Math.max(1, Math.floor(elements / (atLeast * keys))));
  const queryStep = Math.min(queries, Math.max(atLeast, Math.floor(elements / (rowStep * keys))));
  return { rowStep, queryStep };
}

/**
 * By how many columns `[dO, −D]` and `[v, 1]` are wider than dO and v, zeros after the first. Elsewhere than on the CPU
 * they are filled up to a multiple of four: ONNX Runtime's WebGPU products (1.30) load four elements at a time only then.
 */
const tailWidth = (width: number, target: Target): number => (target === "cpu" ? 1 : 4 - (width % 4));

/** `[v, 1, 0…]`: `[B·heads, S, D + tail]`. */
function withOnes(context: LoweringContext, v: string, [rows, keys, tail]: readonly [number, number, number]): string {
  return withColumns(context, v, firstOf(context, tail, 1), [rows, keys, tail]);
}

/** Columns of the given shape after the last of each matrix, of values that are repeated to it. */
function withColumns(context: LoweringContext, name: string, values: string, shape: readonly number[]): string {
  const columns = emit(context, "Expand", [values, context.builder.shape(shape)]);
  return emit(context, "Concat", [name, columns], { axis: { int: 2 } });
}

/** `[dO, −rowsum(dO∘O), 0…]`: `[B·heads, S, D + tail]`. */
function withRowSums(context: LoweringContext, dO: string, o: string, tail: number): string {
  const product = emit(context, "Mul", [dO, o]);
  const sums = emit(context, "ReduceSum", [product, context.builder.ints([-1])], { keepdims: { int: 1 } });
  const negated = emit(context, "Mul", [sums, firstOf(context, tail, -1)]);
  return emit(context, "Concat", [dO, negated], { axis: { int: 2 } });
}

/** `[B·heads, S, D]` with `count` rows of zeros after the last of each. */
function padRows(context: LoweringContext, name: string, count: number): string {
  return emit(context, "Pad", [name, context.builder.ints([0, 0, 0, 0, count, 0])]);
}

/**
 * Queries and keys as the scores' product takes them: `[q, 1]` and `[k, mask]`, whose mask hides the `added` last keys; as
 * they are where none were added.
 */
function scoreFactors(
  context: LoweringContext,
  q: string,
  k: string,
  [rows, queries, keys, width, added]: readonly [number, number, number, number, number],
): { q: string; k: string; width: number } {
  if (added === 0) return { q, k, width };
  const mask = new Float32Array(keys + added).fill(MASKED, keys);
  const column = context.builder.constant(tensor(mask, [1, keys + added, 1]), `${added} hidden of ${keys + added}`);
  return {
    k: withColumns(context, k, column, [rows, keys + added, 1]),
    q: withOnes(context, q, [rows, queries, 1]),
    width: width + 1,
  };
}

/** `[value, 0…]`: `[width]`. */
function firstOf(context: LoweringContext, width: number, value: number): string {
  const row = new Float32Array(width);
  row[0] = value;
  return context.builder.constant(tensor(row, [width]));
}

const matrix = (name: string) => ({ name, rank: 3 });

function sum(context: LoweringContext, a: string | undefined, b: string): string {
  return a === undefined ? b : emit(context, "Add", [a, b]);
}

/** Keys, and the factor that a product with them must still get. */
interface Keys {
  name: string;
  alpha: number;
}

/** On the CPU a product scales on its way; elsewhere that would be a pass over all scores, and the keys are scaled. */
function scaledKeys(context: LoweringContext, k: string, scale: number): Keys {
  if (context.target === "cpu") return { name: k, alpha: scale };
  return { name: emit(context, "Mul", [k, context.builder.scalar(scale)]), alpha: 1 };
}

/** softmax(alpha·q kᵀ + mask). */
function probabilities(context: LoweringContext, q: string, { name, alpha }: Keys, mask: string | undefined): string {
  const scores = emitMatMul(context, matrix(q), matrix(name), { transposeB: true, alpha });
  const masked = mask === undefined ? scores : emit(context, "Add", [scores, mask]);
  return emit(context, "Softmax", [masked], { axis: { int: -1 } });
}

/** `[end − start, keys]`: 0 where query start+i may see key j ≤ start+i, a large negative number elsewhere. */
function causalMask(context: LoweringContext, start: number, end: number, keys: number): string {
  const mask = new Float32Array(sizeOf([end - start, keys]));
  for (let i = start; i < end; i++) for (let j = i + 1; j < keys; j++) mask[(i - start) * keys + j] = MASKED;
  return context.builder.constant(tensor(mask, [end - start, keys]), `causal ${start}-${end} of ${keys}`);
}

/** `[B, S, heads·D]` → `[B·heads, S, D]`. */
function splitHeads(context: LoweringContext, value: Value, heads: number): string {
  const [batch, tokens, features] = value.shape as [number, number, number];
  if (heads === 1) return context.name(value);
  const split = reshaped(context, value, [batch, tokens, heads, features / heads]);
  const transposed = emit(context, "Transpose", [split], { perm: { ints: [0, 2, 1, 3] } });
  return reshapedName(context, transposed, [batch * heads, tokens, features / heads]);
}

/** `[B, S, heads·D]` → `[B·heads, D, S]`. */
function splitHeadsTransposed(context: LoweringContext, value: Value, heads: number): string {
  const [batch, tokens, features] = value.shape as [number, number, number];
  const split = reshaped(context, value, [batch, tokens, heads, features / heads]);
  const transposed = emit(context, "Transpose", [split], { perm: { ints: [0, 2, 3, 1] } });
  return reshapedName(context, transposed, [batch * heads, features / heads, tokens]);
}

/** `[B·heads, S, D]`, or `[B·heads, D, S]` where `isTransposed`, → `[B, S, heads·D]`, as the value wanted. */
function mergeHeads(
  context: LoweringContext,
  name: string,
  [batch, tokens, features]: readonly [number, number, number],
  heads: number,
  output: Value,
  isTransposed = false,
): void {
  const width = features / heads;
  const split = reshapedName(context, name, [batch, heads, ...(isTransposed ? [width, tokens] : [tokens, width])]);
  const merged = emit(context, "Transpose", [split], { perm: { ints: isTransposed ? [0, 3, 1, 2] : [0, 2, 1, 3] } });
  produceReshaped(context, output, merged);
}

/** Cuts an axis of `size` into parts of `step`; the last one may be shorter. */
function divide(context: LoweringContext, name: string, axis: number, size: number, step: number): string[] {
  if (step >= size) return [name];
  const { builder } = context;
  const sizes = Array.from({ length: Math.ceil(size / step) }, (_, i) => Math.min(step, size - i * step));
  return builder.emit("Split", [name, builder.ints(sizes)], {
    attributes: { axis: { int: axis } },
    outputs: sizes.map(() => builder.fresh("part")),
  });
}

function join(context: LoweringContext, names: readonly string[], axis: number): string {
  return names.length === 1 ? names[0]! : emit(context, "Concat", names, { axis: { int: axis } });
}
