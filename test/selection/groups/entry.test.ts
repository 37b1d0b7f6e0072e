import { expect, test } from "vitest";
import { compileEntry, parseEntry } from "../../../src/selection/groups/entry.ts";

test.each([
  ["q_proj", "name"],
  ["self_attn.q_proj", "name"],
  ["layers.0.fc-1", "name"],
  ["all-linear", "all-linear"],
  ["All-Linear", "all-linear"],
  ["*_proj", "glob"],
  ["**.self_attn.*", "glob"],
  ["self_attn.*", "glob"],
  ["model.layers.*.q_proj", "glob"],
  ["**.mlp.*_proj", "glob"],
  ["{q,k}_proj", "glob"],
  ["layers.[0-3].fc?", "glob"],
  ["[!0-3]", "glob"],
  [".*q_proj", "regex"],
  [".*.q_proj", "regex"],
  ["model.*q_proj", "regex"],
  ["model\\.q_proj", "regex"],
  ["(q|v)_proj", "regex"],
  ["q_proj|v_proj", "regex"],
  ["[^.]*q", "regex"],
  ["q+", "regex"],
  ["q_proj$", "regex"],
  ["regex:q_proj", "regex"],
  ["glob:model.*q_proj", "glob"],
  ["name:all-linear", "name"],
  ["name:a*", "name"],
])("%s is read as %s, negative or not", (text, kind) => {
  expect(parseEntry(text)).toMatchObject({ text, kind, isNegative: false });
  expect(parseEntry(`!${text}`)).toMatchObject({ text: `!${text}`, kind, isNegative: true });
  expect(parseEntry(`!${text}`).body).toBe(parseEntry(text).body);
});

const matches = (entry: string, name: string): boolean => {
  const found = compileEntry(parseEntry(entry));
  if (typeof found !== "function") throw new Error(found.message);
  return found(name);
};

test.each([
  // one part, several parts, the end of a name
  ["*_proj", "model.layers.0.q_proj", true],
  ["*_proj", "q_proj.base", false],
  ["self_attn.*", "layers.0.self_attn.q_proj", true],
  ["self_attn.*", "layers.0.self_attn", false],
  ["self_attn.*", "layers.0.self_attn.q.lora", false],
  ["self_attn.*", "cross_self_attn.q", false],
  ["layers.*.q_proj", "layers.0.self_attn.q_proj", false],
  ["layers.**.q_proj", "layers.0.self_attn.q_proj", true],
  ["layers.**.q_proj", "layers.q_proj", true],
  ["layers.**.q_proj", "layersx.q_proj", false],
  ["layers.**", "model.layers.0.self_attn", true],
  ["layers.**", "model.layers", false],
  ["**.q_proj", "q_proj", true],
  ["**", "a.b", true],
  ["l**_proj", "layers.0.q_proj", true],
  ["*", "a.b", true],
  ["fc?", "mlp.fc1", true],
  ["fc?", "mlp.fc", false],
  ["fc?", "fc.", false],
  ["layers.[0-35].fc", "layers.5.fc", true],
  ["layers.[0-35].fc", "layers.4.fc", false],
  ["layers.[!0-3].fc", "layers.4.fc", true],
  ["layers.[!0-3].fc", "layers.3.fc", false],
  ["a[!b]c", "a.c", false],
  ["[a-]", "-", true],
  ["{q,v}_proj", "attn.v_proj", true],
  ["{q,v}_proj", "attn.k_proj", false],
  ["{self,cross}_attn.{q,{k,v}}", "x.cross_attn.k", true],
  ["{**.a,b}.c", "x.a.c", true],
  // dots and the like are literal
  ["a.b*", "axb1", false],
  ["glob:a(b)*", "a(b)c", true],
  ["*_proj", "x\n.q_proj", true],
  // the whole name for regexes
  ["(q|v)_proj", "q_proj", true],
  ["(q|v)_proj", "attn.q_proj", false],
  [".*\\.(q|v)_proj", "attn.q_proj", true],
])("%s on %s", (entry, name, expected) => {
  expect(matches(entry, name)).toBe(expected);
});

test.each([
  ["", "invalid-entry", /is empty/],
  ["!", "invalid-entry", /is empty/],
  ["{a", "invalid-entry", /a "\{" without its "\}"/],
  ["a}", "invalid-entry", /a "\}" without its "\{"/],
  ["a]*", "invalid-entry", /a "\]" without its "\["/],
  ["[]", "invalid-entry", /nothing between/],
  ["[z-a]", "invalid-entry", /runs backwards/],
  ["(a", "invalid-regex", /position 0/],
  ["regex:**", "invalid-regex", /position 0/],
])("%j is refused", (text, code, message) => {
  expect(compileEntry(parseEntry(text))).toEqual(
    expect.objectContaining({ code, message: expect.stringMatching(message) }),
  );
});
