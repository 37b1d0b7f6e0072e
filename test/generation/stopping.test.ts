import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { StopStringFilter, stopReason } from "../../src/generation/stopping.ts";

describe("stopReason", () => {
  const limits = { eosTokenIds: [2, 7], maxNewTokens: 3 };
  it.each([
    [2, 1, "eos"],
    [7, 3, "eos"],
    [5, 3, "length"],
    [5, 2, undefined],
  ] as const)("token %d as number %d: %s", (token, count, reason) => {
    expect(stopReason(token, count, limits)).toBe(reason);
  });
});

describe("StopStringFilter", () => {
  /** All pieces passed on, and the stop string found. */
  const run = (stops: string[], pieces: string[]) => {
    const filter = new StopStringFilter(stops);
    const out = pieces.map((piece) => filter.push(piece));
    if (filter.stopped === undefined) out.push(filter.end());
    return { out, stopped: filter.stopped };
  };

  it.each([
    [["END"], ["abc", "E", "N", "Dx"], ["abc", "", "", ""], "END"],
    [["END"], ["abcEN", "xyz"], ["abc", "ENxyz", ""], undefined],
    [["END"], ["abcEN"], ["abc", "EN"], undefined],
    [["\n\n"], ["a\n", "b\n", "\nc"], ["a", "\nb", ""], "\n\n"],
    [["aab"], ["aaab"], ["a"], "aab"],
    [["abc", "b"], ["xabcx"], ["xa"], "b"],
    [["bc", "abc"], ["xabcx"], ["x"], "abc"],
    [["###"], ["##", "#"], ["", ""], "###"],
    [["😀"], ["a😁", "b😀"], ["a😁", "b"], "😀"],
    [[], ["a", "b"], ["a", "b", ""], undefined],
    [[""], ["a"], ["a", ""], undefined],
  ])("stops %j, pieces %j", (stops, pieces, out, stopped) => {
    expect(run(stops, pieces)).toEqual({ out, stopped });
  });

  it("gives the same however the text is cut into pieces, and never any of a stop string", () => {
    const text = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 30 });
    const stop = fc.string({ unit: fc.constantFrom("a", "b", "c"), minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(text, fc.array(stop, { maxLength: 3 }), fc.array(fc.nat(30)), (whole, stops, cuts) => {
        const at = [0, ...cuts.map((cut) => Math.min(cut, whole.length)).sort((a, b) => a - b), whole.length];
        const pieces = at.slice(1).map((end, i) => whole.slice(at[i], end));
        const { out, stopped } = run(stops, pieces);
        const byLetter = run(stops, [...whole]);
        expect(out.join("")).toBe(byLetter.out.join(""));
        expect(stopped).toBe(byLetter.stopped);
        // the definition: the shortest beginning that ends with a stop string
        const end = Array.from({ length: whole.length + 1 }, (_, i) => i).find((i) =>
          stops.some((s) => whole.slice(0, i).endsWith(s)),
        );
        const found =
          end === undefined
            ? undefined
            : stops.filter((s) => whole.slice(0, end).endsWith(s)).sort((a, b) => b.length - a.length)[0];
        expect(stopped).toBe(found);
        expect(out.join("")).toBe(found === undefined ? whole : whole.slice(0, end! - found.length));
      }),
      { numRuns: 500 },
    );
  });

  it("holds back no more than it must", () => {
    const filter = new StopStringFilter(["abcd"]);
    expect(filter.push("xxabc")).toBe("xx");
    expect(filter.push("a")).toBe("abc");
    expect(filter.push("x")).toBe("ax");
  });
});
