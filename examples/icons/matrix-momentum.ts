// Muon for a whole model: matrices and convolutions follow their orthogonalized momentum, the rest follows AdamW. The
// iteration runs in ONNX Runtime, where its products take a tenth of a training step; in JavaScript they would take ten steps.

import { add, Graph, matMul, mul, type Value } from "../../src/graph/index.js";
import { type CompiledGraph, compile } from "../../src/runtime/index.js";
import { sizeOf, Tensor } from "../../src/tensor/tensor.js";
import { updateByAdamW } from "../../src/training/optimizers/adamw-update.js";
import { rateFactor } from "../../src/training/optimizers/muon.js";
import { Optimizer, type ParameterUpdate, type StepRate } from "../../src/training/optimizers/optimizer.js";
import type { DiffusionBatch, LossesAndGradients } from "../../src/training/trainable.js";

type Slot = "momentum_buffer" | "exp_avg" | "exp_avg_sq";

const MOMENTUM = 0.95;
const COEFFICIENTS = [3.4445, -4.775, 2.0315] as const;
const ITERATIONS = 5;
/** Smaller matrices, and tables of embeddings, follow AdamW. */
const LEAST_SIDE = 32;
const MOST_ROWS = 2048;

/** Rows and columns of a weight that is orthogonalized: a convolution's kernel is a matrix of its output channels. */
function matrixOf(shape: readonly number[]): [rows: number, columns: number] | undefined {
  if (shape.length !== 2 && shape.length !== 4) return undefined;
  const rows = shape[0]!;
  const columns = sizeOf(shape) / rows;
  return Math.min(rows, columns) >= LEAST_SIDE && rows <= MOST_ROWS ? [rows, columns] : undefined;
}

/**
 * AdamW and, for matrices of A rows and B columns, θ ← θ·(1 − γλ) − γ·0.2·sqrt(max(A, B))·O, whose O comes in the
 * gradient's place. The factor makes steps as large as AdamW's, so that its learning rates hold.
 *
 * @see Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks
 */
export class MatrixMomentum extends Optimizer<Slot> {
  override readonly needsShapes = true;

  constructor(
    lr: number,
    private readonly betas: readonly [number, number],
    private readonly weightDecay: number,
  ) {
    const moment = { size: (shape: readonly number[]) => (matrixOf(shape) ? 0 : sizeOf(shape)) };
    super("MatrixMomentum", lr, {
      momentum_buffer: { size: (shape) => (matrixOf(shape) ? sizeOf(shape) : 0) },
      exp_avg: moment,
      exp_avg_sq: { ...moment, nonNegative: true },
    });
  }

  protected updateAll(updates: readonly ParameterUpdate<Slot>[], { learningRate, k }: StepRate): void {
    const { betas, weightDecay } = this;
    for (const { parameter, gradient, shape, state, factor } of updates) {
      const rate = learningRate * factor;
      const matrix = matrixOf(shape);
      if (matrix) {
        const keep = 1 - rate * weightDecay;
        const step = rate * rateFactor("match_rms_adamw", ...matrix);
        for (let i = 0; i < parameter.length; i++) parameter[i] = parameter[i]! * keep - step * gradient[i]!;
      } else {
        const moments = { first: state.exp_avg as Float32Array, second: state.exp_avg_sq as Float32Array };
        updateByAdamW(parameter, gradient, moments, { betas, eps: 1e-8, weightDecay, learningRate: rate, k });
      }
    }
  }
}

/**
 * X ← (a + b·G + c·G²)·X with G = XXᵀ, five times; of a tall matrix from the other side. Where a matrix is much longer than wide the
 * small side alone is iterated: Q ← P·Q and G ← P·G·P with P = a + b·G + c·G², and X is multiplied once, by Q.
 *
 * @param x - Of Frobenius norm 1.
 */
function orthogonalized(x: Value, [rows, columns]: readonly [number, number]): Value {
  const [a, b, c] = COEFFICIENTS;
  const isTall = rows > columns;
  const side = Math.min(rows, columns);
  const gramOf = (value: Value) =>
    isTall ? matMul(value, value, { transposeA: true }) : matMul(value, value, { transposeB: true });
  const times = (factor: Value, value: Value) => (isTall ? matMul(value, factor) : matMul(factor, value));
  if (Math.max(rows, columns) < 2 * side) {
    for (let i = 0; i < ITERATIONS; i++) {
      const gram = gramOf(x);
      x = add(mul(x, a), times(add(mul(gram, b), mul(matMul(gram, gram), c)), x));
    }
    return x;
  }
  const diagonal = new Float32Array(side * side);
  for (let i = 0; i < side; i++) diagonal[i * (side + 1)] = a;
  const scaledIdentity = x.graph.constant(new Tensor("float32", [side, side], diagonal));
  let gram = gramOf(x);
  let product: Value | undefined;
  for (let i = 0; i < ITERATIONS; i++) {
    const factor = add(scaledIdentity, add(mul(gram, b), mul(matMul(gram, gram), c)));
    product = product ? matMul(factor, product) : factor;
    if (i < ITERATIONS - 1) gram = matMul(factor, matMul(gram, factor));
  }
  return times(product!, x);
}

/** What has gradients: a `Trainable`, or a part that is trained on batches of its own kind. */
interface Differentiable<Batch> {
  readonly parameters: ReadonlyMap<string, Tensor<"float32">>;
  compute(batch: Batch): Promise<LossesAndGradients>;
}

/** A model whose gradients of matrices are replaced by their orthogonalized momentum, which the optimizer's state holds. */
export class OrthogonalizedModel<Batch = DiffusionBatch> {
  readonly parameters;

  private constructor(
    private readonly model: Differentiable<Batch>,
    private readonly optimizer: MatrixMomentum,
    private readonly graph: CompiledGraph,
    private readonly matrices: ReadonlyMap<string, Tensor<"float32">>,
  ) {
    this.parameters = model.parameters;
  }

  static async compile<Batch = DiffusionBatch>(
    model: Differentiable<Batch>,
    optimizer: MatrixMomentum,
  ): Promise<OrthogonalizedModel<Batch>> {
    const graph = new Graph();
    const matrices = new Map<string, Tensor<"float32">>();
    for (const [name, { shape }] of model.parameters) {
      const matrix = matrixOf(shape);
      if (!matrix) continue;
      matrices.set(name, new Tensor("float32", matrix, new Float32Array(new SharedArrayBuffer(4 * sizeOf(shape)))));
      const x = graph.input(name, "float32", matrix);
      graph.output(`direction.${name}`, orthogonalized(x, matrix));
    }
    return new OrthogonalizedModel(model, optimizer, await compile(graph), matrices);
  }

  async compute(batch: Batch): Promise<LossesAndGradients> {
    const result = await this.model.compute(batch);
    const chosen = new Map([...this.parameters].filter(([name]) => this.matrices.has(name)));
    for (const [name, state] of this.optimizer.stateOf(chosen)) {
      const gradient = result.gradients.get(name)!;
      const buffer = state.momentum_buffer;
      const { data } = this.matrices.get(name)!;
      let sum = 0;
      for (let i = 0; i < gradient.length; i++) {
        const g = gradient[i]!;
        const m = MOMENTUM * buffer[i]! + (1 - MOMENTUM) * g;
        buffer[i] = m;
        const u = (1 - MOMENTUM) * g + MOMENTUM * m;
        data[i] = u;
        sum += u * u;
      }
      const scale = 1 / Math.max(Math.sqrt(sum), 1e-7);
      for (let i = 0; i < data.length; i++) data[i] = data[i]! * scale;
    }
    const directions = await this.graph.run(Object.fromEntries(this.matrices));
    const gradients = new Map(result.gradients);
    for (const [name, direction] of Object.entries(directions))
      gradients.set(name.slice("direction.".length), direction.data as Float32Array);
    return { ...result, gradients };
  }

  /** Of the iteration; the model is released by itself. */
  release(): Promise<void> {
    return this.graph.release();
  }
}
