// Assembles an ONNX model: nodes, initializers (embedded or in files), inputs and outputs, and its protobuf bytes.

import { create, toBinary } from "@bufbuild/protobuf";
import {
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  StringStringEntryProtoSchema,
  type TensorProto,
  TensorProto_DataLocation,
  TensorProto_DataType,
  TensorProtoSchema,
  TensorShapeProto_DimensionSchema,
  TypeProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from "onnx-buf";
import type { FileRange, StoredType } from "../graph/graph.js";
import { type DType, type Tensor, tensor, toBytes } from "../tensor/tensor.js";

/** ONNX operator set version that every lowering is written for. */
export const OPSET_VERSION = 20;
const IR_VERSION = 9n;

/** An ONNX attribute with its type spelled out: JavaScript cannot tell 1 from 1.0. */
export type OnnxAttribute = { int: number } | { float: number } | { ints: readonly number[] } | { string: string };

/** Types of weights in files. */
export type FileType = DType | StoredType | "int8" | "uint8";

const ELEMENT_TYPE: Record<FileType, number> = {
  int8: TensorProto_DataType.INT8,
  uint8: TensorProto_DataType.UINT8,
  float32: TensorProto_DataType.FLOAT,
  float16: TensorProto_DataType.FLOAT16,
  bfloat16: TensorProto_DataType.BFLOAT16,
  int64: TensorProto_DataType.INT64,
  int32: TensorProto_DataType.INT32,
  bool: TensorProto_DataType.BOOL,
};

/** The ONNX data type number of a dtype. */
export const elementType = (dtype: FileType): number => ELEMENT_TYPE[dtype];

/** How a model is written. */
export interface OnnxModelOptions {
  /** Where a weight file lies, relative to the folder of all weights. The path itself by default. */
  fileLocation?: (path: string) => string;
  /**
   * Keeps shape inference from seeing the shapes that tensors are given by {@link OnnxModelBuilder.reshape}.
   *
   * Where ONNX Runtime's planner (1.30) knows that two tensors have the same shape, the later one takes over the earlier
   * one's memory, which is therefore held in between, often from the first layers' forward pass to their backward pass. At
   * Stable Diffusion's size that was a quarter of a step's memory, and half of it when recomputing. What it cannot tell is
   * freed at once. Operators in place are given up for it.
   */
  hidesShapes?: boolean;
}

/** A tensor under another shape. */
interface View {
  base: string;
  shape: readonly number[];
  isWritten: boolean;
}

/** An ONNX graph under construction; values are names. */
export class OnnxModelBuilder {
  private readonly nodes: NodeProto[] = [];
  private readonly initializers: TensorProto[] = [];
  private readonly inputs: ValueInfoProto[] = [];
  private readonly outputs: ValueInfoProto[] = [];
  private readonly known: ValueInfoProto[] = [];
  private readonly shared = new Map<string, string>();
  private readonly nodeNames = new Map<string, number>();
  private readonly files = new Map<string, string>();
  private readonly views = new Map<string, View>();
  /** Names of views by what they show and their shape, and the shapes of what they show where that was told. */
  private readonly viewNames = new Map<string, string>();
  private readonly ownShapes = new Map<string, string>();
  private counter = 0;
  private readonly hiddenShapes = new Map<string, string>();
  private readonly hiddenLengths = new Map<number, string>();
  private readonly fileLocation: (path: string) => string;
  private readonly hidesShapes: boolean;

  constructor({ fileLocation = (path) => path, hidesShapes = false }: OnnxModelOptions = {}) {
    this.fileLocation = fileLocation;
    this.hidesShapes = hidesShapes;
  }

  /**
   * What the nodes emitted from now on are named after, in front of their operator: phase and layer, such as
   * `gradient/mid_block.resnets.0.conv1`. Empty for the operator alone.
   */
  origin = "";

  /** A value name that nothing else has. */
  fresh(prefix: string): string {
    return `${prefix}_${this.counter++}`;
  }

  /** Adds a node and returns its output names. `outputs` may name them; an empty name leaves an optional output out. */
  emit(
    opType: string,
    inputs: readonly string[],
    options: { attributes?: Record<string, OnnxAttribute>; outputs?: readonly string[]; domain?: string } = {},
  ): string[] {
    for (const name of inputs) this.writeView(name);
    const outputs = [...(options.outputs ?? [this.fresh(opType)])];
    this.nodes.push(
      create(NodeProtoSchema, {
        opType,
        name: this.nodeName(opType),
        domain: options.domain ?? "",
        input: [...inputs],
        output: outputs,
        attribute: Object.entries(options.attributes ?? {}).map(([name, value]) => attributeProto(name, value)),
      }),
    );
    return outputs;
  }

  /** `ORIGIN/OPERATOR`, with a number from the second node of that name on. */
  private nodeName(opType: string): string {
    const name = this.origin === "" ? opType : `${this.origin}/${opType}`;
    const count = this.nodeNames.get(name) ?? 0;
    this.nodeNames.set(name, count + 1);
    return count === 0 ? name : `${name}_${count}`;
  }

  /**
   * A tensor under another shape of as many elements. Its Reshape is written where a node first takes it, and only once;
   * the reshape of a reshape shows the first tensor, and is that itself where the shape is its own.
   *
   * @param from - The tensor's own shape, where it is known.
   */
  reshape(name: string, shape: readonly number[], from?: readonly number[]): string {
    const base = this.views.get(name)?.base ?? name;
    if (base === name && from) this.ownShapes.set(base, from.join(","));
    const wanted = shape.join(",");
    if (this.ownShapes.get(base) === wanted) return base;
    const key = `${base}:${wanted}`;
    const known = this.viewNames.get(key);
    if (known !== undefined) return known;
    const view = this.fresh("Reshape");
    this.viewNames.set(key, view);
    this.views.set(view, { base, shape, isWritten: false });
    return view;
  }

  private writeView(name: string): void {
    const view = this.views.get(name);
    if (!view || view.isWritten) return;
    view.isWritten = true;
    this.emit("Reshape", [view.base, this.shape(view.shape)], { outputs: [name] });
  }

  /**
   * A shape for Reshape or Expand.
   *
   * A hidden one is itself given its length by a node, so that shape inference does not even know how many dimensions
   * result: tensors of which it does are compared with all that was freed before them, which takes a minute at Stable
   * Diffusion's size.
   */
  shape(values: readonly number[]): string {
    if (!this.hidesShapes) return this.ints(values);
    const key = values.join(",");
    let hidden = this.hiddenShapes.get(key);
    if (hidden === undefined) {
      hidden = this.hiddenShape(values);
      this.hiddenShapes.set(key, hidden);
    }
    return hidden;
  }

  /** Nodes of all layers share it: it is named after none. */
  private hiddenShape(values: readonly number[]): string {
    const { origin } = this;
    this.origin = "shapes";
    const [hidden] = this.emit("Reshape", [this.ints(values), this.hiddenLength(values.length)]) as [string];
    this.origin = origin;
    return hidden;
  }

  /** A length whose own length, 1, a node makes too. */
  private hiddenLength(length: number): string {
    let hidden = this.hiddenLengths.get(length);
    if (hidden === undefined) {
      const one = length === 1 ? this.emit("Identity", [this.ints([1])])[0]! : this.hiddenLength(1);
      [hidden] = this.emit("Reshape", [this.ints([length]), one]) as [string];
      this.hiddenLengths.set(length, hidden);
    }
    return hidden;
  }

  /** A shape for Reshape that is known only once all of `given` have been made. */
  shapeAfter(values: readonly number[], given: readonly string[]): string {
    if (this.hidesShapes) {
      // min(max(sizes, length), length) is the length, whatever the sizes.
      const sizes = given.map((name) => this.emit("Size", [name])[0]!);
      const length = this.constant(tensor(BigInt64Array.of(BigInt(values.length)), []));
      const [longest] = this.emit("Max", [...sizes, length]) as [string];
      const [shortest] = this.emit("Min", [longest, length]) as [string];
      const [vector] = this.emit("Reshape", [shortest, this.shape([1])]) as [string];
      return this.emit("Reshape", [this.ints(values), vector])[0]!;
    }
    const none = { attributes: { start: { int: 0 }, end: { int: 0 } } };
    const parts = given.map((name) => this.emit("Shape", [name], none)[0]!);
    return this.emit("Concat", [...parts, this.ints(values)], { attributes: { axis: { int: 0 } } })[0]!;
  }

  /** An embedded tensor; small ones are shared by content, others by `name` if they have one. */
  constant(value: Tensor, name?: string): string {
    const bytes = toBytes(value);
    const key = bytes.length <= 1024 ? `${value.dtype}[${value.shape.join(",")}]${bytes.join(",")}` : name;
    const known = key === undefined ? undefined : this.shared.get(key);
    if (known !== undefined) return known;
    const fresh = this.fresh("constant");
    this.initializers.push(
      create(TensorProtoSchema, {
        name: fresh,
        dataType: elementType(value.dtype),
        dims: value.shape.map(BigInt),
        rawData: bytes as Uint8Array<ArrayBuffer>,
      }),
    );
    if (key !== undefined) this.shared.set(key, fresh);
    return fresh;
  }

  /** An int64 vector, as shapes and axes are given. */
  ints(values: readonly number[]): string {
    return this.constant(tensor(BigInt64Array.from(values, BigInt), [values.length]));
  }

  /** A float32 scalar. */
  scalar(value: number): string {
    return this.constant(tensor(Float32Array.of(value), []));
  }

  /**
   * A tensor that stays in its file. The same bytes as the same tensor are one, under the first of their names: each is mapped
   * into memory by itself.
   */
  file(name: string, dtype: FileType, shape: readonly number[], { path, offset, length }: FileRange): string {
    const key = `${path}:${offset}:${length}:${dtype}[${shape}]`;
    const known = this.files.get(key);
    if (known !== undefined) return known;
    this.files.set(key, name);
    const entry = (key: string, value: string) => create(StringStringEntryProtoSchema, { key, value });
    this.initializers.push(
      create(TensorProtoSchema, {
        name,
        dataType: elementType(dtype),
        dims: shape.map(BigInt),
        dataLocation: TensorProto_DataLocation.EXTERNAL,
        externalData: [
          entry("location", this.fileLocation(path)),
          entry("offset", String(offset)),
          entry("length", String(length)),
        ],
      }),
    );
    return name;
  }

  input(name: string, dtype: DType, shape: readonly number[]): void {
    this.inputs.push(valueInfo(name, dtype, shape));
  }

  output(name: string, dtype: DType, shape: readonly number[]): void {
    this.outputs.push(valueInfo(name, dtype, shape));
  }

  /** Records the shape of an intermediate value that shape inference cannot see, unless shapes are hidden. */
  shaped(name: string, dtype: DType, shape: readonly number[]): void {
    if (!this.hidesShapes) this.known.push(valueInfo(name, dtype, shape));
  }

  /**
   * What depends on weights alone comes first, all else in the order in which it was made.
   *
   * Of the nodes that a node waits for, ONNX Runtime runs the one with the highest position first. A weight that is widened
   * or transformed is therefore made last, right before it is used; else all of a pass's were made before its first layer
   * and held.
   */
  private orderedNodes(): NodeProto[] {
    const variable = new Set(this.inputs.map(({ name }) => name));
    const later: NodeProto[] = [];
    const first = this.nodes.filter((node) => {
      if (!node.input.some((name) => variable.has(name))) return true;
      for (const name of node.output) variable.add(name);
      later.push(node);
      return false;
    });
    return [...first, ...later];
  }

  /** Serializes the model. */
  toBytes(): Uint8Array {
    const model = create(ModelProtoSchema, {
      irVersion: IR_VERSION,
      producerName: "fera",
      opsetImport: [
        { domain: "", version: BigInt(OPSET_VERSION) },
        { domain: "com.microsoft", version: 1n },
      ],
      graph: {
        name: "fera",
        node: this.orderedNodes(),
        initializer: this.initializers,
        input: this.inputs,
        output: this.outputs,
        valueInfo: this.known,
      },
    });
    return toBinary(ModelProtoSchema, model);
  }
}

function attributeProto(name: string, value: OnnxAttribute) {
  if ("int" in value) {
    return create(AttributeProtoSchema, { name, type: AttributeProto_AttributeType.INT, i: BigInt(value.int) });
  }
  if ("float" in value) {
    return create(AttributeProtoSchema, { name, type: AttributeProto_AttributeType.FLOAT, f: value.float });
  }
  if ("ints" in value) {
    return create(AttributeProtoSchema, {
      name,
      type: AttributeProto_AttributeType.INTS,
      ints: value.ints.map(BigInt),
    });
  }
  const bytes = new TextEncoder().encode(value.string);
  return create(AttributeProtoSchema, { name, type: AttributeProto_AttributeType.STRING, s: bytes });
}

function valueInfo(name: string, dtype: DType, shape: readonly number[]): ValueInfoProto {
  return create(ValueInfoProtoSchema, {
    name,
    type: create(TypeProtoSchema, {
      value: {
        case: "tensorType",
        value: {
          elemType: elementType(dtype),
          shape: { dim: shape.map((dimension) => create(TensorShapeProto_DimensionSchema, dimensionInit(dimension))) },
        },
      },
    }),
  });
}

function dimensionInit(dimension: number) {
  return { value: { case: "dimValue" as const, value: BigInt(dimension) } };
}
