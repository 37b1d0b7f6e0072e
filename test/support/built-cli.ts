import { fileURLToPath } from "node:url";

/** Folder of the command line as tests run it; build-cli.ts makes it. */
export const builtCliFolder = fileURLToPath(
  new URL("../../node_modules/.cache/graft-cli-of-tests", import.meta.url),
);

export const builtCli = `${builtCliFolder}/cli/main.js`;
