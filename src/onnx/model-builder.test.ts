import { fromBinary } from "@bufbuild/protobuf";
import { ModelProtoSchema } from "onnx-buf";
import { describe, expect, it } from "vitest";
import { OnnxModelBuilder } from "./model-builder.js";

/** Operators and inputs of a model's nodes. */
const nodesOf = (builder: OnnxModelBuilder) =>
  fromBinary(ModelProtoSchema, builder.toBytes()).graph!.node.map(({ opType, input }) => [opType, input[0]]);

describe("a reshape", () => {
  it("is written where it is first taken, and once", () => {
    const builder = new OnnxModelBuilder();
    const [x] = builder.emit("Exp", ["a"]) as [string];
    const view = builder.reshape(x, [2, 3]);
    expect(builder.reshape(x, [2, 3])).toBe(view);
    builder.emit("Neg", ["b"]);
    expect(nodesOf(builder).length).toBe(2);
    builder.emit("Sqrt", [view]);
    builder.emit("Sin", [view]);
    expect(nodesOf(builder)).toEqual([
      ["Exp", "a"],
      ["Neg", "b"],
      ["Reshape", x],
      ["Sqrt", view],
      ["Sin", view],
    ]);
  });

  it("of a reshape goes back to the first tensor", () => {
    const builder = new OnnxModelBuilder();
    const view = builder.reshape("x", [6], [2, 3]);
    builder.emit("Exp", [builder.reshape(view, [3, 2])]);
    expect(nodesOf(builder)[0]).toEqual(["Reshape", "x"]);
    expect(nodesOf(builder).length).toBe(2);
    expect(builder.reshape(view, [2, 3])).toBe("x");
  });

  it("can hide its shape from shape inference, with the same nodes for all of that shape", () => {
    const builder = new OnnxModelBuilder({ hidesShapes: true });
    builder.emit("Exp", [builder.reshape("x", [2, 3])]);
    builder.emit("Exp", [builder.reshape("y", [2, 3])]);
    builder.shaped("y", "float32", [6]);
    const { node, valueInfo } = fromBinary(ModelProtoSchema, builder.toBytes()).graph!;
    const [shape, x, , y] = node.slice(-5);
    expect(node.slice(-5).map(({ opType }) => opType)).toEqual(["Reshape", "Reshape", "Exp", "Reshape", "Exp"]);
    for (const view of [x, y]) expect(view!.input[1]).toBe(shape!.output[0]);
    expect(node[0]!.opType).toBe("Identity");
    expect(valueInfo).toEqual([]);
  });
});
