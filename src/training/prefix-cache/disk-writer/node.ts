import { randomBytes } from "node:crypto";
import type * as fs from "node:fs/promises";
import { join } from "node:path";
import { crc32c } from "../../crc32c.ts";
import type { Place } from "../disk-places/node.ts";
import { INDEX_START, indexLine } from "../index-lines.ts";

/** The system's calls, to be replaced where their failures are tested. */
export type System = Pick<typeof fs, "open" | "statfs">;

/** Bytes written between two looks at the free space, of which so much more may be taken. */
const SPACE_CHECK = 64 * 2 ** 20;

/** The two files that a process writes: `<random>.data`, and `<random>.index`, which says where in it examples lie. */
export class DiskWriter {
  private readonly folder: string;
  private readonly system: System;
  private readonly data: fs.FileHandle;
  private readonly index: fs.FileHandle;
  private dataSize = 0;
  private indexSize = 0;
  private unchecked = Number.POSITIVE_INFINITY;

  private constructor(folder: string, system: System, files: { data: fs.FileHandle; index: fs.FileHandle }) {
    this.folder = folder;
    this.system = system;
    this.data = files.data;
    this.index = files.index;
  }

  /** Makes the files. `opened` is told of each, for closing it, also if a later step fails. */
  static async create(
    folder: string,
    system: System,
    opened: (file: fs.FileHandle) => void,
  ): Promise<DiskWriter> {
    const path = join(folder, randomBytes(8).toString("hex"));
    const data = await system.open(`${path}.data`, "wx+");
    opened(data);
    const index = await system.open(`${path}.index`, "ax");
    opened(index);
    const writer = new DiskWriter(folder, system, { data, index });
    await writer.addToIndex(INDEX_START);
    return writer;
  }

  /** Of both files. */
  get bytes(): number {
    return this.dataSize + this.indexSize;
  }

  /**
   * Writes an example behind the others.
   * @throws what the system says, or an error like it if fewer than `minFreeBytes` are left on the disk.
   */
  async append(key: string, bytes: Uint8Array, { minFreeBytes }: { minFreeBytes: number }): Promise<Place> {
    await this.checkSpace(bytes.length, minFreeBytes);
    const place = {
      key,
      offset: this.dataSize,
      length: bytes.length,
      crc: crc32c(bytes),
      file: this.data,
    };
    await writeFully(this.data, bytes, this.dataSize);
    await this.addToIndex(indexLine(place));
    this.dataSize += bytes.length;
    return place;
  }

  /** Gives back the room of what was written last and failed, which others may need now. */
  async forgetFailed(): Promise<void> {
    await this.data.truncate(this.dataSize).catch(() => undefined);
  }

  private async addToIndex(text: string): Promise<void> {
    const line = new TextEncoder().encode(text);
    await writeFully(this.index, line, null);
    this.indexSize += line.length;
  }

  private async checkSpace(length: number, minFreeBytes: number): Promise<void> {
    this.unchecked += length;
    if (this.unchecked < SPACE_CHECK) return;
    this.unchecked = 0;
    const { bavail, bsize } = await this.system.statfs(this.folder);
    if (bavail * bsize < minFreeBytes)
      throw Object.assign(new Error("the disk is nearly full"), { code: "ENOSPC" });
  }
}

/** One call may write only a part: on a full disk what fits, and only the next call fails. `position` null: at the end. */
async function writeFully(file: fs.FileHandle, bytes: Uint8Array, position: number | null): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const at = position === null ? null : position + done;
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, at);
    if (bytesWritten === 0) throw Object.assign(new Error("nothing was written"), { code: "ENOSPC" });
    done += bytesWritten;
  }
}
