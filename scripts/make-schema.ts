/**
 * Writes schemas/graft.schema.json, the JSON schema of graft.yaml, from the schema that reads such files.
 *
 *     node --import tsx scripts/make-schema.ts && npx biome format --write schemas
 */
import { writeFileSync } from "node:fs";
import { graftSchema } from "../src/adapters/selection-file-schema.ts";

writeFileSync(
  new URL("../schemas/graft.schema.json", import.meta.url),
  `${JSON.stringify(graftSchema(), null, 2)}\n`,
);
