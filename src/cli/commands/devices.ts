import type { Command } from "commander";
import { addFlags, readFlags, toggle } from "../flags.ts";
import { Output } from "../output.ts";

const outputFlags = { json: toggle("Print one JSON document.") };

export function define(command: Command): void {
  addFlags(command, "Output", outputFlags);
  command.addHelpText(
    "after",
    `
Examples:
  graft devices
  graft devices --json`,
  );
  command.action(async () => printDevices(new Output(readFlags(command, outputFlags, []))));
}

/** What ONNX Runtime can compute on here; "cpu" is always there. */
export async function printDevices(output: Output): Promise<void> {
  const { listDevices } = await import("../../runtime/node.ts");
  const devices = await listDevices();
  output.document({ devices });
  for (const device of devices) output.print(device);
}
