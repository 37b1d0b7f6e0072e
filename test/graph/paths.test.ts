import { posix, win32 } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { commonDirectory, relativeTo, rootOf } from "../../src/graph/onnx/paths.ts";

const segment = fc.stringMatching(/^[a-z0-9 ._-]{1,6}$/).filter((name) => !/^\.+$/.test(name));
const files = (root: string, separator: string) =>
  fc
    .tuple(
      fc.array(segment, { maxLength: 3 }),
      fc.array(fc.array(segment, { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 4 }),
    )
    .map(([parent, paths]) => paths.map((path) => root + [...parent, ...path].join(separator)));

describe.each([
  ["POSIX", "/", "/", posix],
  ["a Windows drive", "C:\\", "\\", win32],
  ["a Windows share", "\\\\server\\share\\", "\\", win32],
] as const)("%s", (_, root, separator, { join, isAbsolute }) => {
  test("the common directory and the relative path join back", () => {
    fc.assert(
      fc.property(files(root, separator), (paths) => {
        const directory = commonDirectory(paths);
        expect(isAbsolute(directory)).toBe(true);
        for (const path of paths) {
          const relative = relativeTo(directory, path);
          expect(isAbsolute(relative)).toBe(false);
          expect(relative).not.toContain("\\");
          expect(join(directory, relative)).toBe(join(path));
        }
      }),
    );
  });

  test("the common directory is the deepest", () => {
    fc.assert(
      fc.property(files(root, separator), (paths) => {
        const directory = commonDirectory(paths);
        const first = paths.map((path) => relativeTo(directory, path).split("/"));
        // Either some file lies in it, or two files part here.
        expect(first.some((parts) => parts.length === 1) || new Set(first.map(([x]) => x)).size > 1).toBe(
          true,
        );
      }),
    );
  });
});

test("a backslash in a POSIX name is part of the name", () => {
  expect(commonDirectory(["/a/b\\c/x", "/a/b\\d/y"])).toBe("/a");
  expect(relativeTo("/a", "/a/b\\c/x")).toBe("b\\c/x");
});

test("names are compared whole", () => {
  expect(commonDirectory(["/models/a/x", "/models/ab/x"])).toBe("/models");
});

test("Windows paths may mix separators and the case of the drive", () => {
  expect(commonDirectory(["C:\\a\\x", "C:/a/b/y"])).toBe("C:\\a");
  expect(relativeTo("C:\\a", "C:/a/b/y")).toBe("b/y");
  expect(rootOf("c:\\x")).toBe(rootOf("C:/y"));
  expect(rootOf("C:\\x")).not.toBe(rootOf("D:\\x"));
});
