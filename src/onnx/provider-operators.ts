// Which operators ONNX Runtime's execution providers compute, as its own documents list them: facts, for the operators that
// lowerings emit and a few more. What a provider lacks runs on the CPU, with copies before and after.

import { fromBinary } from "@bufbuild/protobuf";
import { ModelProtoSchema } from "onnx-buf";

/** Providers of GPUs and other accelerators. */
export type ListedProvider = "webgpu" | "cuda" | "coreml" | "dml";

/** What a provider computes, at the operator set that models are written for, in float32. */
interface ProviderTable {
  /** Where it was read. */
  source: string;
  operators: ReadonlySet<string>;
  /** Inputs that must be constants or weights, by operator. */
  constantInputs?: Readonly<Record<string, readonly number[]>>;
  /** Known to the provider, but computed in main memory. */
  onHost?: ReadonlySet<string>;
}

const names = (text: string): ReadonlySet<string> => new Set(text.split(/\s+/).filter(Boolean));

/** Elementwise, shapes, reductions and products that WebGPU, CUDA and DirectML have in common. */
const COMMON = `
  Add Sub Mul Div Neg Exp Log Sqrt Sin Cos Sigmoid Tanh Relu Erf Reciprocal Greater Where Pow Cast Gather ScatterND
  ReduceSum ReduceMean Softmax LayerNormalization Reshape Expand Transpose Concat Slice Split Pad Shape DepthToSpace
  MatMul Gemm Conv ConvTranspose Resize AveragePool Einsum DequantizeLinear
  com.microsoft:QuickGelu com.microsoft:Gelu com.microsoft:MatMulNBits com.microsoft:MultiHeadAttention
`;

export const PROVIDER_OPERATORS: Readonly<Record<ListedProvider, ProviderTable>> = {
  webgpu: {
    source: "onnxruntime-web 1.30.0, docs/webgpu-operators.md",
    operators: names(`${COMMON} Gelu`),
    onHost: names("Reshape Shape"),
  },
  cuda: {
    source: "ONNX Runtime, docs/OperatorKernels.md of revision 001d12d",
    operators: names(`${COMMON} Gelu Identity Max Min Size com.microsoft:FusedMatMul`),
    onHost: names("Shape Size"),
  },
  coreml: {
    source:
      "ONNX Runtime, tools/ci_build/github/apple/coreml_supported_ops.md of revision 045ee20 (NeuralNetwork, the default)",
    operators: names(`
      Add Sub Mul Div Sigmoid Tanh Relu Pow Cast Reshape Transpose Concat Pad DepthToSpace MatMul Gemm Conv Resize
      AveragePool
    `),
    constantInputs: { MatMul: [1], Gemm: [1], Conv: [1, 2], Pad: [1] },
  },
  dml: {
    source: "ONNX Runtime, docs/OperatorKernels.md of revision 001d12d",
    operators: names(`${COMMON} Identity Max Min Size com.microsoft:FusedMatMul`),
  },
};

/** What of a model a provider leaves to the CPU. */
export interface Fallbacks {
  provider: ListedProvider;
  source: string;
  /** Of the whole model. */
  nodes: number;
  /** Those that run on the CPU, by operator, the most frequent first. */
  operators: readonly { operator: string; nodes: number; why: string }[];
}

/**
 * Walks a lowered model.
 *
 * Nodes that only compute shapes from constants are not told: ONNX Runtime runs those on the CPU by design.
 *
 * @param bytes - As `lower` makes it for the target `portable`.
 */
export function fallbacksOf(bytes: Uint8Array, provider: ListedProvider): Fallbacks {
  const { source, operators, constantInputs = {}, onHost } = PROVIDER_OPERATORS[provider];
  const { graph } = fromBinary(ModelProtoSchema, bytes);
  const constants = new Set(graph!.initializer.map(({ name }) => name));
  const found = new Map<string, { operator: string; nodes: number; why: string }>();
  for (const { opType, domain, input } of graph!.node) {
    const operator = domain === "" ? opType : `${domain}:${opType}`;
    if (onHost?.has(operator)) continue;
    const variable = (constantInputs[operator] ?? []).some((at) => input[at] && !constants.has(input[at]));
    if (operators.has(operator) && !variable) continue;
    const why = variable ? "needs a constant where the graph has a value" : "is not computed there";
    const known = found.get(`${operator} ${why}`) ?? { operator, nodes: 0, why };
    known.nodes++;
    found.set(`${operator} ${why}`, known);
  }
  const list = [...found.values()].sort((a, b) => b.nodes - a.nodes);
  return { provider, source, nodes: graph!.node.length, operators: list };
}
