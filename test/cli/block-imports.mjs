import { register } from "node:module";

/** Makes every import fail whose specifier matches the regular expression in GRAFT_TEST_BLOCK. */
const hooks = `
const blocked = new RegExp(process.env.GRAFT_TEST_BLOCK);
export async function resolve(specifier, context, next) {
  if (blocked.test(specifier)) throw new Error("blocked: " + specifier);
  return next(specifier, context);
}`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
