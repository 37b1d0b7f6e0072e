import { create } from "@bufbuild/protobuf";
import { byteSize, type Tensor } from "../../tensor/index.ts";
import type { WeightStorage } from "../value.ts";
import { onnxDataTypes } from "./encoding.ts";
import {
  type TensorProto,
  TensorProto_DataLocation,
  TensorProto_DataType,
  TensorProtoSchema,
} from "./onnx_pb.ts";
import type { WeightFiles } from "./weight-files.ts";

/** The tensors of a program that are known: weights, referred to where they lie, and small constants. Methods return names. */
export class Initializers {
  readonly protos: TensorProto[] = [];
  private readonly constants = new Map<string, string>();
  /** Names of weights by file (or source) and by place, type and shape there. */
  private readonly weights = new Map<unknown, Map<string, string>>();
  private readonly files: WeightFiles;
  private readonly unused: (wanted: string) => string;

  /** `unused` makes a name from the one that is wanted. */
  constructor(files: WeightFiles, unused: (wanted: string) => string) {
    this.files = files;
    this.unused = unused;
  }

  /** Weights of one place, type and shape are one initializer, as tied weights are. */
  weight(storage: WeightStorage, dataType = onnxDataTypes[storage.dtype]): string {
    const file = storage.source.path ?? storage.source;
    const key = `${storage.byteOffset} ${dataType}[${storage.shape}]`;
    const inFile = this.weights.get(file) ?? new Map<string, string>();
    this.weights.set(file, inFile);
    const name = inFile.get(key) ?? this.external(storage, dataType);
    inFile.set(key, name);
    return name;
  }

  private external(storage: WeightStorage, dataType: TensorProto_DataType): string {
    const name = this.unused(storage.name);
    const { shape } = storage;
    const dims = dataType === TensorProto_DataType.INT4 ? [...shape.slice(0, -1), 2 * shape.at(-1)!] : shape;
    const { location, byteOffset } = this.files.place(storage);
    this.protos.push(
      create(TensorProtoSchema, {
        name,
        dataType,
        dims: dims.map(BigInt),
        dataLocation: TensorProto_DataLocation.EXTERNAL,
        externalData: [
          { key: "location", value: location },
          { key: "offset", value: String(byteOffset) },
          { key: "length", value: String(storage.byteLength) },
        ],
      }),
    );
    return name;
  }

  /** A small tensor, kept inline; equal ones are kept once. */
  constant({ dtype, shape, data }: Tensor): string {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.length * byteSize(dtype));
    const key = bytes.length <= 64 ? `${dtype}[${shape}]${bytes.join(",")}` : undefined;
    const known = key === undefined ? undefined : this.constants.get(key);
    if (known !== undefined) return known;
    const name = this.unused(`constant_${this.protos.length}`);
    this.protos.push(
      create(TensorProtoSchema, {
        name,
        dataType: onnxDataTypes[dtype],
        dims: shape.map(BigInt),
        rawData: bytes.slice(),
      }),
    );
    if (key !== undefined) this.constants.set(key, name);
    return name;
  }
}
