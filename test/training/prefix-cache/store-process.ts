/** Run by a test as a process of its own: puts examples k<from> to k<to>, and prints a line for each once it is stored. */
import { DiskStore } from "../../../src/training/prefix-cache/node.ts";
import { kept } from "./kept-values.ts";

const [directory, from, to] = process.argv.slice(2);
const store = await DiskStore.open({ directory: directory!, key: "k", maxBytes: 1e9, minFreeBytes: 0 });
for (let i = Number(from); i < Number(to); i++) {
  await store.put(`k${i}`, kept(i, 1 + (i % 3)));
  process.stdout.write(`${i}\n`);
}
await store.close();
