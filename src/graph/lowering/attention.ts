// ONNX forms of attention and of its gradient.

import { sizeOf, tensor } from "../../tensor/tensor.js";
import type { Value } from "../graph.js";
import {
  emit,
  emitMatMul,
  type Lowering,
  type LoweringContext,
  produce,
  reshapedName,
  waitFor,
} from "./lowering-context.js";

/** Largest probability block that the gradient holds at a time, in elements (64 MB). */
const BLOCK_ELEMENTS = 1 << 24;
const QUERIES_PER_CHUNK = 512;
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
  const p = probabilities(context, q3, k3, scale, causal ? causalMask(context, 0, queries, queries) : undefined);
  const merged = emitMatMul(context, { name: p, rank: 3 }, { name: v3, rank: 3 });
  mergeHeads(context, merged, [batch, queries, features], heads, output);
};

/**
 * D = rowsum(dO∘O), P = softmax(scale·q kᵀ), dS = P∘(dO vᵀ − D), dq = scale·dS k, dk = scale·dSᵀ q, dv = Pᵀ dO,
 * recomputing P block by block: at most BLOCK_ELEMENTS of it exist at a time. Each block waits for the results of the
 * one before, and the first result used for the others of the last block: a search for dq alone would otherwise make all
 * blocks' dS before the first dk.
 */
export const lowerAttentionGradient: Lowering<"AttentionGradient"> = (node, context) => {
  const [q, k, v, o, dO] = node.inputs as [Value, Value, Value, Value, Value];
  const { heads, scale, causal } = node.attributes;
  const [batch, queries, features] = q.shape as [number, number, number];
  const keys = k.shape[1]!;
  const rows = batch * heads;
  const queryStep = rows * queries * keys > BLOCK_ELEMENTS ? Math.min(queries, QUERIES_PER_CHUNK) : queries;
  const rowStep = Math.min(rows, Math.max(1, Math.floor(BLOCK_ELEMENTS / (queryStep * keys))));
  const split = [q, k, v, o, dO].map((value) => splitHeads(context, value, heads));
  const used = node.outputs.map(context.isUsed);
  const parts: [string[], string[], string[]] = [[], [], []];
  let previous: string[] = [];
  for (let row = 0; row < rows; row += rowStep) {
    const rowEnd = Math.min(rows, row + rowStep);
    const cutRows = (name: string) => (rowEnd - row === rows ? name : cut(context, name, 0, row, rowEnd));
    const [qr, kr, vr, or, dOr] = split.map(cutRows) as [string, string, string, string, string];
    const dqs: string[] = [];
    let dk: string | undefined;
    let dv: string | undefined;
    for (let start = 0; start < queries; start += queryStep) {
      const end = Math.min(queries, start + queryStep);
      const cutQueries = (name: string) => (end - start === queries ? name : cut(context, name, 1, start, end));
      const mask = causal ? causalMask(context, start, end, keys) : undefined;
      const [cutQ, oc, dOc] = [qr, or, dOr].map(cutQueries) as [string, string, string];
      const shape = [rowEnd - row, end - start, features / heads];
      const qc = previous.length === 0 ? cutQ : waitFor(context, { name: cutQ, dtype: q.dtype, shape }, previous);
      const block = blockGradient(context, { q: qc, k: kr, v: vr, o: oc, dO: dOc }, { scale, mask, used });
      if (block.dq !== undefined) dqs.push(block.dq);
      dk = sum(context, dk, block.dk);
      dv = sum(context, dv, block.dv);
      previous = [block.dq, dk, dv].filter((name) => name !== undefined);
    }
    if (used[0]) parts[0].push(join(context, dqs, 1));
    if (dk !== undefined) parts[1].push(dk);
    if (dv !== undefined) parts[2].push(dv);
  }
  const shapes = [
    [batch, queries, features],
    [batch, keys, features],
    [batch, keys, features],
  ] as const;
  node.outputs.forEach((output, i) => {
    if (!used[i]) return;
    const [, tokens] = shapes[i]!;
    const shape = [rows, tokens, features / heads];
    const all = join(context, parts[i]!, 0);
    const ordered = previous.length > 1 && rows * queries * keys >= ORDERED_ELEMENTS;
    const whole = !ordered ? all : waitFor(context, { name: all, dtype: output.dtype, shape }, previous);
    mergeHeads(context, whole, shapes[i]!, heads, output);
  });
};

function blockGradient(
  context: LoweringContext,
  block: Record<"q" | "k" | "v" | "o" | "dO", string>,
  options: { scale: number; mask: string | undefined; used: readonly boolean[] },
): { dq?: string; dk?: string; dv?: string } {
  const matrix = (name: string) => ({ name, rank: 3 });
  const { q, k, v, o, dO } = block;
  const { scale, mask, used } = options;
  const p = probabilities(context, q, k, scale, mask);
  const dv = used[2] ? emitMatMul(context, matrix(p), matrix(dO), { transposeA: true }) : undefined;
  if (!used[0] && !used[1]) return { dv };
  const rowSums = emit(context, "ReduceSum", [emit(context, "Mul", [dO, o]), context.builder.ints([-1])], {
    keepdims: { int: 1 },
  });
  const dP = emitMatMul(context, matrix(dO), matrix(v), { transposeB: true });
  const dS = emit(context, "Mul", [p, emit(context, "Sub", [dP, rowSums])]);
  return {
    dq: used[0] ? emitMatMul(context, matrix(dS), matrix(k), { alpha: scale }) : undefined,
    dk: used[1] ? emitMatMul(context, matrix(dS), matrix(q), { transposeA: true, alpha: scale }) : undefined,
    dv,
  };
}

function sum(context: LoweringContext, a: string | undefined, b: string | undefined): string | undefined {
  return a === undefined || b === undefined ? b : emit(context, "Add", [a, b]);
}

function probabilities(
  context: LoweringContext,
  q: string,
  k: string,
  scale: number,
  mask: string | undefined,
): string {
  const scores = emitMatMul(context, { name: q, rank: 3 }, { name: k, rank: 3 }, { transposeB: true, alpha: scale });
  const masked = mask === undefined ? scores : emit(context, "Add", [scores, mask]);
  return emit(context, "Softmax", [masked], { axis: { int: -1 } });
}

/** `[end − start, keys]`: 0 where query start+i may see key j ≤ start+i, a large negative number elsewhere. */
function causalMask(context: LoweringContext, start: number, end: number, keys: number): string {
  const mask = new Float32Array(sizeOf([end - start, keys]));
  for (let i = start; i < end; i++) for (let j = i + 1; j < keys; j++) mask[(i - start) * keys + j] = MASKED;
  return context.builder.constant(tensor(mask, [end - start, keys]));
}

/** `[B, S, heads·D]` → `[B·heads, S, D]`. */
function splitHeads(context: LoweringContext, value: Value, heads: number): string {
  const [batch, tokens, features] = value.shape as [number, number, number];
  if (heads === 1) return context.name(value);
  const split = reshapedName(context, context.name(value), [batch, tokens, heads, features / heads]);
  const turned = emit(context, "Transpose", [split], { perm: { ints: [0, 2, 1, 3] } });
  return reshapedName(context, turned, [batch * heads, tokens, features / heads]);
}

/** `[B·heads, S, D]` → `[B, S, heads·D]`, as the value wanted. */
function mergeHeads(
  context: LoweringContext,
  name: string,
  [batch, tokens, features]: readonly [number, number, number],
  heads: number,
  output: Value,
): void {
  const split = reshapedName(context, name, [batch, heads, tokens, features / heads]);
  const turned = emit(context, "Transpose", [split], { perm: { ints: [0, 2, 1, 3] } });
  produce(context, output, "Reshape", [turned, context.builder.ints([batch, tokens, features])]);
}

function cut(context: LoweringContext, name: string, axis: number, start: number, end: number): string {
  const { builder } = context;
  return emit(context, "Slice", [name, builder.ints([start]), builder.ints([end]), builder.ints([axis])]);
}

function join(context: LoweringContext, names: readonly string[], axis: number): string {
  return names.length === 1 ? names[0]! : emit(context, "Concat", names, { axis: { int: axis } });
}
