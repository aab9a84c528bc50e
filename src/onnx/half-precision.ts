// Mixed precision: a model in which products, convolutions and what lies between them compute in float16, and the rest in
// float32. For GPUs; ONNX Runtime's CPU provider rounds to float16 between nodes and computes in float32.

import { clone, create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  TensorProto_DataLocation,
  TensorProto_DataType,
} from "onnx-buf";
import { float32ToFloat16 } from "../tensor/float16.js";

const { FLOAT, FLOAT16, INT64, BOOL } = TensorProto_DataType;

/** Always in float16: where nearly all of the work is. */
const PRODUCTS = new Set(["MatMul", "Gemm", "Conv", "ConvTranspose"]);
/** In float16 where everything that they take is: they round little, or not at all. */
const FOLLOWING = new Set(
  [
    "Reshape",
    "Transpose",
    "Slice",
    "Concat",
    "Split",
    "Expand",
    "Pad",
    "Resize",
    "Identity",
    "Neg",
    "Relu",
    "Add",
    "Sub",
  ].concat(["Mul", "Sigmoid", "Gelu", "Tanh"]),
);
/** Inputs that are data; all of them where nothing is said. */
const DATA_INPUTS: Readonly<Record<string, number>> = { Reshape: 1, Slice: 1, Split: 1, Expand: 1, Pad: 1, Resize: 1 };
/** Phases and layers whose numbers must be exact: statistics, softmax and reductions are so everywhere. */
const EXACT = /^(?:(?:gradient|recompute|base)\/)?(?:loss|adapter|optimizer|average|shapes)\//;

/**
 * Rewrites a model that was lowered for the target `portable`.
 *
 * Inputs and results stay as they are: what is trained has its float32 values, and its gradients are float32. Reductions
 * (the statistics of norms, sums of gradients), softmax, roots, exponentials, losses and the optimizer compute in float32.
 */
export function inHalfPrecision(bytes: Uint8Array): Uint8Array {
  const model = fromBinary(ModelProtoSchema, bytes);
  return toBinary(ModelProtoSchema, new Rewriting(model).rewritten());
}

class Rewriting {
  /** Element types by name, as the rewritten nodes make them. */
  private readonly types = new Map<string, number>();
  private readonly nodes: NodeProto[] = [];
  /** Names of the same value in another type. */
  private readonly casts = new Map<string, string>();
  private readonly constants = new Set<string>();
  private readonly results: ReadonlySet<string>;

  constructor(private readonly model: ModelProto) {
    const graph = model.graph!;
    for (const { name, dataType, dataLocation } of graph.initializer) {
      this.types.set(name, dataType);
      if (dataLocation !== TensorProto_DataLocation.EXTERNAL) this.constants.add(name);
    }
    for (const { name, type } of graph.input) {
      if (type?.value.case === "tensorType") this.types.set(name, type.value.value.elemType);
    }
    this.results = new Set(graph.output.map(({ name }) => name));
  }

  rewritten(): ModelProto {
    const graph = this.model.graph!;
    const outer = graph.node;
    for (const node of outer) this.add(node);
    const result = clone(ModelProtoSchema, this.model);
    const made = result.graph!;
    made.node = this.nodes;
    this.addHalfConstants(made);
    for (const info of made.valueInfo) {
      if (info.type?.value.case === "tensorType") info.type.value.value.elemType = this.types.get(info.name) ?? FLOAT;
    }
    return result;
  }

  private add(node: NodeProto): void {
    const data = node.input.slice(0, DATA_INPUTS[node.opType]);
    const floats = data.filter((name) => name !== "" && isFloat(this.types.get(name)));
    const computes = floats.length > 0 && node.domain === "" && !EXACT.test(node.name);
    const variable = floats.filter((name) => !this.constants.has(name));
    const follows = variable.length > 0 && variable.every((name) => this.types.get(name) === FLOAT16);
    const isHalf = computes && (PRODUCTS.has(node.opType) || (FOLLOWING.has(node.opType) && follows));
    // A Cast says itself what it gives.
    if (node.opType === "Cast") {
      this.nodes.push(node);
      this.types.set(node.output[0]!, Number(node.attribute.find(({ name }) => name === "to")!.i));
      return;
    }
    const wanted = isHalf ? FLOAT16 : FLOAT;
    const input = node.input.map((name, i) => {
      const isData = i < (DATA_INPUTS[node.opType] ?? node.input.length);
      return name !== "" && isData && isFloat(this.types.get(name)) ? this.as(name, wanted) : name;
    });
    const output = node.output.map((name) => {
      if (!isHalf || !this.results.has(name)) return name;
      const own = `${name}${HALF}`;
      this.casts.set(`${name}:${FLOAT16}`, own);
      return own;
    });
    this.nodes.push(create(NodeProtoSchema, { ...node, input, output }));
    for (const [i, name] of output.entries()) {
      if (name === "") continue;
      this.types.set(name, typeOf(node, floats.length > 0 ? wanted : (this.types.get(node.input[0]!) ?? FLOAT)));
      if (name !== node.output[i]) this.cast(name, FLOAT, node.output[i]!, node.name);
    }
  }

  /** The name of a value in a type. */
  private as(name: string, type: number): string {
    if (this.types.get(name) === type) return name;
    const key = `${name}:${type}`;
    const known = this.casts.get(key);
    if (known !== undefined) return known;
    const made = `${name}${type === FLOAT16 ? HALF : FULL}`;
    this.casts.set(key, made);
    if (type === FLOAT16 && this.constants.has(name)) this.types.set(made, FLOAT16);
    else this.cast(name, type, made, name);
    return made;
  }

  private cast(from: string, type: number, to: string, origin: string): void {
    const attribute = create(AttributeProtoSchema, {
      name: "to",
      type: AttributeProto_AttributeType.INT,
      i: BigInt(type),
    });
    const name = `${origin}/Cast${type === FLOAT16 ? HALF : FULL}`;
    this.nodes.push(
      create(NodeProtoSchema, { opType: "Cast", name, input: [from], output: [to], attribute: [attribute] }),
    );
    this.types.set(to, type);
  }

  /** Constants that are taken in float16 are stored so, and no more in float32 where nothing else takes them. */
  private addHalfConstants(graph: NonNullable<ModelProto["graph"]>): void {
    const taken = new Set(graph.node.flatMap(({ input }) => input));
    const kept = [];
    for (const constant of graph.initializer) {
      const half = this.casts.get(`${constant.name}:${FLOAT16}`);
      if (taken.has(constant.name) || !this.constants.has(constant.name)) kept.push(constant);
      if (half === undefined || !this.constants.has(constant.name)) continue;
      const values = new Float32Array(constant.rawData.slice().buffer);
      const rawData = new Uint8Array(float32ToFloat16(values).buffer as ArrayBuffer);
      kept.push({ ...constant, name: half, dataType: FLOAT16, rawData });
    }
    graph.initializer = kept;
  }
}

const HALF = "_half";
const FULL = "_full";

const isFloat = (type: number | undefined): boolean => type === FLOAT || type === FLOAT16;

function typeOf({ opType }: NodeProto, computed: number): number {
  if (opType === "Greater") return BOOL;
  return opType === "Shape" || opType === "Size" ? INT64 : computed;
}
