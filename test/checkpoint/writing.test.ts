import { execFileSync, spawnSync } from "node:child_process";
import { chmod, mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import {
  openStore,
  readCheckpoint,
  readTensor,
  serializeSafetensors,
  type TensorEntry,
} from "../../src/checkpoint/index.ts";
import {
  type FileContents,
  writeDirectoryAtomic,
  writeFileAtomic,
  writeSafetensors,
} from "../../src/checkpoint/node.ts";
import type { Tensor } from "../../src/tensor/index.ts";
import { f32, failure, temporaryDirectory } from "./helpers.ts";

/** Everything below a directory, with contents, temporary files included. */
async function contents(path: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const entry of await readdir(path, { recursive: true, withFileTypes: true }))
    if (entry.isFile())
      found[join(entry.parentPath, entry.name).slice(path.length + 1)] = await readFile(
        join(entry.parentPath, entry.name),
        "utf8",
      );
  return found;
}

const isRoot = process.getuid?.() === 0;

/** Whether this machine lets us mount a small file system. Containers and ordinary users may not. */
const canMount = (() => {
  if (process.platform !== "linux" || !isRoot) return false;
  const script = 'd=$(mktemp -d) && mount -t tmpfs -o size=64k tmpfs "$d" && umount "$d" && rmdir "$d"';
  return spawnSync("sh", ["-c", script]).status === 0;
})();
const needsMount = "needs root and the right to mount a file system";

/** A file system of its own, with 256 KiB unless told otherwise. */
async function fileSystem(options = "size=256k"): Promise<string> {
  const path = await temporaryDirectory();
  execFileSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", path]);
  onTestFinished(() => void execFileSync("umount", [path]));
  return path;
}

/** Runs with the rights of an ordinary user, whom permissions concern. */
async function asNobody<T>(run: () => Promise<T>): Promise<T> {
  if (!isRoot) return run();
  process.setegid!(65_534);
  process.seteuid!(65_534);
  try {
    return await run();
  } finally {
    process.seteuid!(0);
    process.setegid!(0);
  }
}

const tooMuch = new Uint8Array(1_000_000).fill(1);

/** Fails after the first piece, as a source that cannot be read would. */
async function* broken(): AsyncGenerator<Uint8Array> {
  yield new Uint8Array(10);
  throw new Error("the source broke");
}

describe("writeFileAtomic", () => {
  test("writes bytes, text and pieces, and makes parent directories", async () => {
    const path = await temporaryDirectory();
    async function* pieces() {
      yield Buffer.from("ab");
      yield Buffer.from("");
      yield Buffer.from("c");
    }
    await writeFileAtomic(join(path, "deep/er/bytes"), Buffer.from("abc"));
    await writeFileAtomic(join(path, "text"), "äbc");
    await writeFileAtomic(join(path, "pieces"), pieces());
    await writeFileAtomic(join(path, "empty"), "");
    expect(await contents(path)).toEqual({ "deep/er/bytes": "abc", text: "äbc", pieces: "abc", empty: "" });
  });

  test("replaces a file, keeping its permissions, and a link's target, keeping the link", async () => {
    const path = await temporaryDirectory();
    await writeFile(join(path, "real"), "old");
    await chmod(join(path, "real"), 0o640);
    await symlink("real", join(path, "link"));
    await writeFileAtomic(join(path, "link"), "new");
    expect(await contents(path)).toEqual({ real: "new" });
    expect((await stat(join(path, "real"))).mode & 0o777).toBe(0o640);
    expect(await readFile(join(path, "link"), "utf8")).toBe("new");
  });

  test("many writers at once leave the whole contents of one of them", async () => {
    const path = await temporaryDirectory();
    const texts = Array.from({ length: 20 }, (_, i) => String(i).repeat(50_000));
    await Promise.all(texts.map((text) => writeFileAtomic(join(path, "x"), text)));
    const found = await contents(path);
    expect(Object.keys(found)).toEqual(["x"]);
    expect(texts).toContain(found["x"]);
  });

  test("a failing source leaves the old file and nothing else", async () => {
    const path = await temporaryDirectory();
    await writeFile(join(path, "x"), "old");
    expect((await failure(writeFileAtomic(join(path, "x"), broken()))).message).toContain("the source broke");
    await failure(writeFileAtomic(join(path, "new/er/y"), broken()));
    expect(await contents(path)).toEqual({ x: "old" });
    expect(await readdir(path)).toEqual(["x"]);
  });

  test("a directory, a device, or a file among the parents is in the way", async () => {
    const path = await temporaryDirectory();
    await writeFile(join(path, "file"), "old");
    const fails = (target: string) => failure(writeFileAtomic(target, "x"));
    expect((await fails(path)).message).toBe(
      `${path}: cannot write: it is a directory. Choose another name.`,
    );
    expect((await fails("/dev/null")).message).toContain("it is not a regular file");
    expect((await fails(join(path, "file", "x"))).message).toContain(
      "part of the path is a file, not a directory (ENOTDIR)",
    );
    expect((await fails(join(path, "n".repeat(300)))).code).toBe("name-too-long");
    expect(await contents(path)).toEqual({ file: "old" });
  });

  test("no permission", async () => {
    const path = await temporaryDirectory();
    await writeFile(join(path, "x"), "old");
    await chmod(path, 0o555);
    const error = await asNobody(() => failure(writeFileAtomic(join(path, "x"), "new")));
    await chmod(path, 0o755);
    expect(error.code).toBe("permission");
    expect(error.message).toContain(
      "permission denied (EACCES). Check the permissions, or choose another place.",
    );
    expect(await contents(path)).toEqual({ x: "old" });
  });

  test.skipIf(!canMount)(`a full disk leaves the old file whole (${needsMount})`, async () => {
    const path = await fileSystem();
    await writeFile(join(path, "x"), "old");
    for (const data of [tooMuch, "t".repeat(1_000_000)] satisfies FileContents[]) {
      const error = await failure(writeFileAtomic(join(path, "x"), data));
      expect(error.code).toBe("no-space");
      expect(error.message).toBe(
        `${join(path, "x")}: cannot write: the disk is full (ENOSPC). Free some space or choose another place; nothing was written.`,
      );
    }
    expect((await failure(writeFileAtomic(join(path, "new/y"), tooMuch))).code).toBe("no-space");
    expect(await contents(path)).toEqual({ x: "old" });
    expect(await readdir(path)).toEqual(["x"]);
  });

  test.skipIf(!canMount)(`a disk that takes only part of one write (${needsMount})`, async () => {
    // The kernel then reports a short write and no error, which write-file-atomic 7 takes for success.
    const path = await fileSystem("size=64k");
    const error = await failure(writeFileAtomic(join(path, "x"), new Uint8Array(65_537)));
    expect(error.code).toBe("no-space");
    expect(await readdir(path)).toEqual([]);
  });

  test.skipIf(!canMount)(`a read-only file system (${needsMount})`, async () => {
    const path = await fileSystem();
    await writeFile(join(path, "x"), "old");
    execFileSync("mount", ["-o", "remount,ro", path]);
    expect((await failure(writeFileAtomic(join(path, "x"), "new"))).message).toContain(
      "the file system is read-only (EROFS). Choose another place.",
    );
    expect((await failure(writeDirectoryAtomic(join(path, "d"), new Map([["a", "1"]])))).code).toBe(
      "read-only",
    );
    expect(await contents(path)).toEqual({ x: "old" });
  });
});

describe("writeSafetensors", () => {
  test("writes what serializeSafetensors gives", async () => {
    const path = join(await temporaryDirectory(), "a.safetensors");
    const tensors = { a: f32(1, 2), b: f32(), c: f32(3) };
    await writeSafetensors(path, tensors, { format: "pt" });
    expect(new Uint8Array(await readFile(path))).toEqual(serializeSafetensors(tensors, { format: "pt" }));
  });

  test("over the file that tensors are copied from (test_serialize_to_file_same_path_with_active_mmap)", async () => {
    const path = join(await temporaryDirectory(), "a.safetensors");
    await writeSafetensors(path, { a: f32(1, 2, 3) });
    const { tensors } = await readCheckpoint(await openStore(path));
    await writeSafetensors(path, new Map<string, Tensor | TensorEntry>([...tensors, ["b", f32(4)]]));
    const after = await readCheckpoint(await openStore(path));
    expect((await readTensor(after.tensors.get("a")!)).data).toEqual(Float32Array.of(1, 2, 3));
    expect((await readTensor(after.tensors.get("b")!)).data).toEqual(Float32Array.of(4));
  });
});

describe("writeDirectoryAtomic", () => {
  const files = new Map<string, FileContents>([
    ["weights", Buffer.from("w2")],
    ["config.json", "c2"],
  ]);
  const written = { weights: "w2", "config.json": "c2" };
  const prefixed = (directory: string, found: Record<string, string>) =>
    Object.fromEntries(Object.entries(found).map(([name, text]) => [`${directory}/${name}`, text]));

  test("a new directory, with parents, and ordinary permissions", async () => {
    const path = await temporaryDirectory();
    await writeDirectoryAtomic(join(path, "a/b"), files);
    expect(await contents(path)).toEqual(prefixed("a/b", written));
    const umask = process.umask();
    expect((await stat(join(path, "a/b"))).mode & 0o777).toBe(0o777 & ~umask);
    expect((await stat(join(path, "a/b/weights"))).mode & 0o777).toBe(0o666 & ~umask);
  });

  test("an empty directory", async () => {
    const path = await temporaryDirectory();
    await mkdir(join(path, "out"));
    await writeDirectoryAtomic(join(path, "out"), files);
    expect(await contents(path)).toEqual(prefixed("out", written));
  });

  test("over an earlier save, which it replaces as a whole", async () => {
    const path = await temporaryDirectory();
    await writeDirectoryAtomic(
      join(path, "out"),
      new Map([
        ["weights", "w1"],
        ["config.json", "c1"],
      ]),
    );
    await writeDirectoryAtomic(join(path, "out"), files);
    expect(await contents(path)).toEqual(prefixed("out", written));
  });

  test("beside other files, which stay", async () => {
    const path = await temporaryDirectory();
    await mkdir(join(path, "out/checkpoint-1"), { recursive: true });
    await writeFile(join(path, "out/checkpoint-1/x"), "1");
    await writeFile(join(path, "out/README.md"), "mine");
    await writeFile(join(path, "out/weights"), "w1");
    await writeDirectoryAtomic(join(path, "out"), files);
    expect(await contents(path)).toEqual(
      prefixed("out", { ...written, "README.md": "mine", "checkpoint-1/x": "1" }),
    );
  });

  test("through a link, which stays", async () => {
    const path = await temporaryDirectory();
    await mkdir(join(path, "real"));
    await symlink("real", join(path, "out"));
    await writeDirectoryAtomic(join(path, "out"), files);
    expect(await contents(path)).toEqual(prefixed("real", written));
  });

  test("the directory the process works in keeps being it", async () => {
    const path = await temporaryDirectory();
    const script = `
      import { writeDirectoryAtomic } from ${JSON.stringify(new URL("../../src/checkpoint/node.ts", import.meta.url).href)};
      import { readdir } from "node:fs/promises";
      for (const text of ["1", "2"]) await writeDirectoryAtomic(".", new Map([["a", text]]));
      if ((await readdir(process.cwd())).join() !== "a") throw new Error("lost");
    `;
    const tsx = new URL("../../node_modules/tsx/dist/cli.mjs", import.meta.url).pathname;
    const run = spawnSync(process.execPath, [tsx, "--input-type=module", "-e", script], {
      cwd: path,
      encoding: "utf8",
    });
    expect(run.stderr).toBe("");
    expect(await contents(path)).toEqual({ a: "2" });
  });

  test("several writers at once leave the whole contents of one of them", async () => {
    for (let round = 0; round < 40; round++) {
      const path = await temporaryDirectory();
      const target = join(path, "out");
      const write = (text: string) =>
        writeDirectoryAtomic(
          target,
          new Map([
            ["a", text],
            ["b", text],
          ]),
        );
      const outcomes = await Promise.allSettled(["1", "2", "3", "4", "5", "6"].map(write));
      expect(outcomes.some(({ status }) => status === "fulfilled")).toBe(true);
      const found = await contents(path);
      expect(Object.keys(found).sort()).toEqual(["out/a", "out/b"]);
      expect(found["out/a"]).toBe(found["out/b"]);
    }
  });

  test("a file of that name, or a directory named like one of the files, is in the way", async () => {
    const path = await temporaryDirectory();
    await writeFile(join(path, "file"), "old");
    const error = await failure(writeDirectoryAtomic(join(path, "file"), files));
    expect(error.code).toBe("exists");
    expect(error.message).toContain("cannot write a directory: there is a file of that name. Remove it");
    expect((await failure(writeDirectoryAtomic(join(path, "file/deeper"), files))).code).toBe(
      "not-a-directory",
    );
    await mkdir(join(path, "out/weights"), { recursive: true });
    expect((await failure(writeDirectoryAtomic(join(path, "out"), files))).code).toBe("is-a-directory");
    expect(await contents(path)).toEqual({ file: "old" });
  });

  test.each(["../x", "/x", "a/b", "", ".", "..", "a\\b"])("the file name %j is refused", async (name) => {
    const path = await temporaryDirectory();
    const error = await failure(writeDirectoryAtomic(join(path, "out"), new Map([[name, "x"]])));
    expect(error.code).toBe("unsafe-file-name");
    expect(await readdir(path)).toEqual([]);
  });

  const situations: Record<string, Record<string, string>> = {
    "nothing there": {},
    "an earlier save there": { "out/weights": "w1", "out/config.json": "c1" },
    "an earlier save and other files there": {
      "out/weights": "w1",
      "out/config.json": "c1",
      "out/README.md": "mine",
    },
  };

  test.each(Object.entries(situations))("a failing source with %s changes nothing", async (_, before) => {
    const path = await temporaryDirectory();
    for (const [name, text] of Object.entries(before)) await writeFileAtomic(join(path, name), text);
    const failing = new Map<string, FileContents>([...files, ["last", broken()]]);
    expect((await failure(writeDirectoryAtomic(join(path, "out"), failing))).message).toContain(
      "the source broke",
    );
    expect(await contents(path)).toEqual(before);
    expect(await readdir(path)).toEqual(Object.keys(before).length > 0 ? ["out"] : []);
  });

  test.skipIf(!canMount).each(Object.entries(situations))(
    `a full disk with %s (${needsMount})`,
    async (_, before) => {
      const path = await fileSystem();
      for (const [name, text] of Object.entries(before)) await writeFileAtomic(join(path, name), text);
      const tooLarge = new Map<string, FileContents>([...files, ["last", tooMuch]]);
      expect((await failure(writeDirectoryAtomic(join(path, "out"), tooLarge))).code).toBe("no-space");
      expect(await contents(path)).toEqual(before);
      expect(await readdir(path)).toEqual(Object.keys(before).length > 0 ? ["out"] : []);
    },
  );

  test.skipIf(!canMount)(`a target that is a mount point (${needsMount})`, async () => {
    const path = await fileSystem();
    await writeFile(join(path, "weights"), "w1");
    await writeDirectoryAtomic(path, files);
    expect(await contents(path)).toEqual(written);
  });

  test.skipIf(!isRoot)(
    "a target in a directory that may not be written to (needs root, to change user)",
    async () => {
      const path = await temporaryDirectory();
      await chmod(path, 0o755);
      await mkdir(join(path, "out"));
      await writeFile(join(path, "out/weights"), "w1");
      await chmod(join(path, "out"), 0o777);
      await chmod(join(path, "out/weights"), 0o666);
      await asNobody(() => writeDirectoryAtomic(join(path, "out"), files));
      expect(await contents(path)).toEqual(prefixed("out", written));
      const error = await asNobody(() => failure(writeDirectoryAtomic(join(path, "new"), files)));
      expect(error.code).toBe("permission");
    },
  );

  test("killed at any moment, the target is entirely old or entirely new", async () => {
    const path = await temporaryDirectory();
    const target = join(path, "out");
    const script = `
      import { writeDirectoryAtomic } from ${JSON.stringify(new URL("../../src/checkpoint/node.ts", import.meta.url).href)};
      for (let i = 0; ; i++) {
        const text = String(i % 10).repeat(20_000);
        await writeDirectoryAtomic(${JSON.stringify(target)}, new Map([["a", text], ["b", text]]));
        if (i === 0) process.stdout.write("ready");
      }
    `;
    const { spawn } = await import("node:child_process");
    for (let round = 0; round < 5; round++) {
      const child = spawn(process.execPath, [
        "--import",
        new URL("../../node_modules/tsx/dist/esm/index.mjs", import.meta.url).href,
        "--input-type=module",
        "-e",
        script,
      ]);
      await new Promise((ready) => child.stdout.once("data", ready));
      await new Promise((wait) => setTimeout(wait, 20 + 17 * round));
      const ended = new Promise((done) => child.once("exit", done));
      child.kill("SIGKILL");
      await ended;
      // Between the two steps of an exchange the contents lie beside the target; then both are whole.
      const kept = (await readdir(path)).includes("out")
        ? [target]
        : (await readdir(path)).map((name) => join(path, name));
      const whole = await Promise.all(
        kept.map(async (directory) => {
          const { a, b } = await contents(directory);
          return a !== undefined && a === b && a.length === 20_000;
        }),
      );
      expect(whole).toContain(true);
      if (kept[0] === target) expect(whole).toEqual([true]);
    }
  });
});
