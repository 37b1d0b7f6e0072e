import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { maskedCrc32c } from "./crc32c.ts";
import { EventSchema, SessionLog_SessionStatus } from "./tensorboard_pb.ts";

/**
 * A TFRecord: length (uint64), its masked CRC-32C, the data, the data's masked CRC-32C, little-endian.
 * Source: tensorflow/core/lib/io/record_writer.cc.
 */
export function frameRecord(data: Uint8Array): Uint8Array {
  const record = new Uint8Array(data.length + 16);
  const view = new DataView(record.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedCrc32c(record.subarray(0, 8)), true);
  record.set(data, 12);
  view.setUint32(12 + data.length, maskedCrc32c(data), true);
  return record;
}

/**
 * The record an event file begins with. With `resumeStep`, a second one tells TensorBoard to forget what
 * earlier files of the run hold for steps after it.
 * @param wallTime seconds since 1970 UTC.
 */
export function encodeFileStart(wallTime: number, resumeStep?: number): Uint8Array {
  const version = encode({ wallTime, what: { case: "fileVersion", value: "brain.Event:2" } });
  if (resumeStep === undefined) return version;
  const start = encode({
    wallTime,
    step: BigInt(resumeStep + 1),
    what: { case: "sessionLog", value: { status: SessionLog_SessionStatus.START } },
  });
  const both = new Uint8Array(version.length + start.length);
  both.set(version);
  both.set(start, version.length);
  return both;
}

/** The record of one step's scalars, which TensorBoard holds as float32. */
export const encodeScalars = (
  step: number,
  scalars: Readonly<Record<string, number>>,
  wallTime: number,
): Uint8Array =>
  encode({
    wallTime,
    step: BigInt(step),
    what: {
      case: "summary",
      value: {
        value: Object.entries(scalars).map(([tag, value]) => ({
          tag,
          value: { case: "simpleValue" as const, value: Math.fround(value) },
        })),
      },
    },
  });

const encode = (event: MessageInitShape<typeof EventSchema>): Uint8Array =>
  frameRecord(toBinary(EventSchema, create(EventSchema, event)));
