// What a lowered model consists of.

import { fromBinary } from "@bufbuild/protobuf";
import { ModelProtoSchema, type NodeProto } from "onnx-buf";

/** The nodes of a model, in file order. */
export const onnxNodes = (bytes: Uint8Array): NodeProto[] => fromBinary(ModelProtoSchema, bytes).graph!.node;

/** Their operators. */
export const operatorsOf = (bytes: Uint8Array): string[] => onnxNodes(bytes).map(({ opType }) => opType);
