// npm run bench [-- options]: runs run.ts, which is TypeScript, on the sources as they are. `--help` lists the options.
import { register } from "tsx/esm/api";

register();
await import("./run.ts");
