import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { root } from "../measure.ts";

export type BundleSize = { readonly minified: number; readonly gzipped: number };
export type Bundle = {
  readonly whole: BundleSize;
  /** Without the tables of Unicode classes and names. */
  readonly withoutTables: BundleSize;
  /** Without the tables, of an application that uses one function only. */
  readonly functions: Readonly<Record<string, BundleSize>>;
  /** Minified bytes by folder of src. */
  readonly folders: Readonly<Record<string, number>>;
};

const tables = /unicode-(tables|names)\.js$/;

/** What applications use; a bundler leaves out the rest. */
const functions = [
  "selectTargets",
  "compileSelection",
  "explain",
  "synthesize",
  "estimateCost",
  "inferTree",
  "versionDifferences",
];

/** Bundles selection/index.js of a build for browsers, whole and without the tables of regex/. */
export async function measureBundle(dist: string): Promise<Bundle> {
  const whole = await bundle(dist, "*", true);
  const without = await bundle(dist, "*", false);
  const each: Record<string, BundleSize> = {};
  for (const name of functions) each[name] = (await bundle(dist, `{ parseSkeleton, ${name} }`, false)).size;
  const folders: Record<string, number> = {};
  for (const [path, { bytesInOutput }] of Object.entries(whole.inputs)) {
    if (path === "<stdin>") continue;
    const file = path.replace(/^.*?(?:dist|bench-selection-\d+)\//, "");
    const folder = tables.test(file)
      ? "regex (tables)"
      : /^selection\/[^/]+\//.test(file)
        ? file.split("/").slice(0, 2).join("/")
        : file.split("/")[0]!.replace(/\.js$/, "");
    folders[folder] = (folders[folder] ?? 0) + bytesInOutput;
  }
  return { whole: whole.size, withoutTables: without.size, functions: each, folders };
}

async function bundle(dist: string, names: string, withTables: boolean) {
  const result = await build({
    absWorkingDir: root,
    stdin: { contents: `export ${names} from "./selection/index.js";`, resolveDir: dist },
    logLevel: "error",
    bundle: true,
    minify: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    write: false,
    metafile: true,
    outfile: "bundle.js",
    plugins: withTables
      ? []
      : [
          {
            name: "without-tables",
            setup({ onResolve }) {
              onResolve({ filter: tables }, ({ path }) => ({ path, external: true }));
            },
          },
        ],
  });
  const code = result.outputFiles[0]!.contents;
  const { inputs } = Object.values(result.metafile.outputs)[0]!;
  return { size: { minified: code.length, gzipped: gzipSync(code, { level: 9 }).length }, inputs };
}
