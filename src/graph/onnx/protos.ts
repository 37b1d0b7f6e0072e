import { create } from "@bufbuild/protobuf";
import type { DType } from "../../tensor/index.ts";
import type { Shape } from "../dim.ts";
import { type OnnxAttribute, onnxDataTypes } from "./encoding.ts";
import {
  type AttributeProto,
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from "./onnx_pb.ts";

/** An attribute as ONNX writes it. */
export function attributeProto(name: string, value: OnnxAttribute): AttributeProto {
  if ("int" in value)
    return create(AttributeProtoSchema, {
      name,
      type: AttributeProto_AttributeType.INT,
      i: BigInt(value.int),
    });
  if ("float" in value)
    return create(AttributeProtoSchema, { name, type: AttributeProto_AttributeType.FLOAT, f: value.float });
  if ("ints" in value)
    return create(AttributeProtoSchema, {
      name,
      type: AttributeProto_AttributeType.INTS,
      ints: value.ints.map(BigInt),
    });
  return create(AttributeProtoSchema, {
    name,
    type: AttributeProto_AttributeType.STRING,
    s: new TextEncoder().encode(value.string),
  });
}

/** Declares an input or output of a model; a symbolic dimension becomes a named one. */
export const valueInfo = ({
  name,
  dtype,
  shape,
}: {
  name: string;
  dtype: DType;
  shape: Shape;
}): ValueInfoProto =>
  create(ValueInfoProtoSchema, {
    name,
    type: {
      value: {
        case: "tensorType",
        value: {
          elemType: onnxDataTypes[dtype],
          shape: {
            dim: shape.map((dim) => ({
              value:
                typeof dim === "number"
                  ? { case: "dimValue" as const, value: BigInt(dim) }
                  : { case: "dimParam" as const, value: dim.key },
            })),
          },
        },
      },
    },
  });
