import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";

test("a reply that comes after dispose does not let the process end before dispose has", () => {
  const thread = new URL("../../src/runtime/thread/node.ts", import.meta.url).href;
  const program = `
    import { EngineThread } from ${JSON.stringify(thread)};
    const thread = new EngineThread();
    await thread.request({ type: "devices" });
    thread.request({ type: "devices" }).catch(() => {});
    // The reply is on its way, and is read when the thread is already being ended.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
    await thread.dispose();
    console.log("disposed");`;
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ["--import", "tsx", "--input-type=module", "--eval", program],
    { encoding: "utf8" },
  );
  expect(stderr).toBe("");
  expect({ status, stdout }).toEqual({ status: 0, stdout: "disposed\n" });
});
