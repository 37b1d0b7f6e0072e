#!/usr/bin/env python3
"""Print what this interpreter's `re` does with random patterns and texts, as JSON, for comparison with src/regex.

usage: python3.11 scripts/check-regex.py [--seed N] [--count N] [--texts N]
       python3.11 scripts/check-regex.py --characters

Each case is {p, warnings?} with either {pos, error} for a pattern that does not compile (pos null where Python gives
none), or {s, full, match, search}: null, or [start, end, group 1, ...] with indexes in code points.
With --characters, `cases` has {p, boundaries} instead: p is tried on every single character, and boundaries are the
code points where matching begins or stops; `cased` has {p, matches}: what p matches among `letters`, all that have case.
Patterns that take Python longer than the time limit are left out. The same seed gives the same cases.
"""
import argparse
import json
import random
import re
import signal
import sys
import warnings

LETTERS = ["a", "a", "b", "b", "c", ".", "[ab]", "[^a]", r"\w"]
ATOMS = LETTERS + [
    r"\.", r"\d", r"\D", r"\W", r"\s", r"\S", "[a-c]", r"[\w.]", r"[^\W_]", "[]a]", "[^]b]", r"[\d-]", "_", "1", "-", r"\-",
    r"\x61", r"\141", r"\u0062", r"\b", r"\B", "^", "$", r"\A", r"\Z", "(?i:A)", "(?i:[A-C])", "(?s:.)", "(?-s:.)", "(?a:\\w)",
    "(?m:^)", "(?m:$)", "\n", r"\n", " ", "#", "é", "ß", "\U0001f600", "(?i:\u017f)", "(?i:[i-s])", "(?i:\u03c3)", "(?i:K)",
    "(?i:[^k])", "(?ia:k)", "(?:)", "()", "(?#x)", "[a-\U0001f600]", r"\N{DIGIT ONE}",
]
QUANTIFIERS = ["*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{,2}", "{2,}", "{0}", "{1,3}?", "{0,2}?", "*+", "++", "?+", "{1,2}+"]
REGULAR_QUANTIFIERS = QUANTIFIERS[:13]
BROKEN = ["*", "{", "}", "]", "[", ")", "(", "\\", "(?", "[^", "{1", "{1,", r"\z", r"\k", r"\8", r"\400", "(?P<", "(?P=", "(?P<1>", "(?<=a*)",
          "(?(", "(?(9)a)", "(?(a", "(?i)", "(?-i", "(?i-", "(?L)", "(?x-x:a)", "(?t)", "[b-a]", r"[a-\d]", r"[\d-a]", r"\x1", r"\u12",
          r"\U00110000", r"\N", r"\N{", r"\N{}", r"\N{no such name}", "(?#", "{2,1}", "**", "|", "[[", "[a--b]", "[a&&b]", "[a||b]", "[~~]",
          "(?( 1 )a)", "(?(+1)a|b)", "(?(1_0)a)", "(?P<a>a)", "(?au)", "(?a)(?u)", "{4294967295}", "(?<!", "(?<x", "(?Px)", r"\07", r"\18", r"\123"]
TEXT = ["a", "a", "a", "b", "b", "b", "c", "_", "1", "-", ".", "A", "B", " ", "\n", "#", "é", "ß", "S", "\u017f", "\u212a", "k", "\u03c2",
        "\u0130", "i", "\U0001f600", "\ud800"]
FLAGS = ["(?i)", "(?s)", "(?x)", "(?m)", "(?a)", "(?ix)", "(?si)", "(?ms)", "(?ia)"]


class Generator:
    def __init__(self, rng):
        self.rng = rng

    def pattern(self):
        self.groups = 0
        self.regular = self.rng.random() < 0.5
        self.atoms = LETTERS if self.rng.random() < 0.5 else ATOMS
        self.broken = self.rng.random() < 0.15
        text = self.alternation(0)
        if self.rng.random() < 0.12:
            text = self.rng.choice(FLAGS) + text
        if self.broken and text and self.rng.random() < 0.3:
            at = self.rng.randrange(len(text))
            text = text[:at] + text[at + 1:]
        return text

    def alternation(self, depth):
        count = 1 if self.rng.random() < 0.7 else self.rng.randint(2, 3)
        return "|".join(self.sequence(depth) for _ in range(count))

    def sequence(self, depth):
        return "".join(self.item(depth) for _ in range(self.rng.randint(0 if depth else 1, 3)))

    def quantifier(self, chance):
        return self.rng.choice(REGULAR_QUANTIFIERS if self.regular else QUANTIFIERS) if self.rng.random() < chance else ""

    def item(self, depth):
        rng, x = self.rng, self.rng.random()
        if self.broken and rng.random() < 0.15:
            return rng.choice(BROKEN)
        if x < 0.5 or depth >= 4:
            return rng.choice(self.atoms) + self.quantifier(0.4)
        if x < 0.75:
            self.groups += 1
            name = f"?P<g{self.groups}>" if rng.random() < 0.2 else ""
            return f"({name}{self.alternation(depth + 1)})" + self.quantifier(0.6)
        if x < 0.85 or self.regular:
            return f"(?:{self.alternation(depth + 1)})" + self.quantifier(0.7)
        if x < 0.92:
            return rng.choice(["(?=", "(?!", "(?>", "(?>", "(?<=", "(?<!"]) + self.alternation(depth + 1) + ")" + self.quantifier(0.2)
        if not self.groups:
            return ""
        group = rng.randint(1, self.groups)
        if x < 0.96:
            return rng.choice(["\\%d", "(?i:\\%d)"]) % group + self.quantifier(0.3)
        return f"(?({group}){self.sequence(depth + 1)}" + (f"|{self.sequence(depth + 1)}" if rng.random() < 0.6 else "") + ")"

    def text(self):
        letters = "ab" if self.atoms is LETTERS and self.rng.random() < 0.6 else TEXT
        return "".join(self.rng.choice(letters) for _ in range(self.rng.randint(0, 9)))


class TooSlow(Exception):
    pass


def on_alarm(*_):
    raise TooSlow


def spans(match):
    return match and [*match.span(), *match.groups()]


def cases(seed, count, texts):
    generator = Generator(random.Random(seed))
    signal.signal(signal.SIGALRM, on_alarm)
    made = 0
    while made < count:
        pattern = generator.pattern()
        inputs = [generator.text() for _ in range(texts)]
        case = {"p": pattern}
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                re.purge()
                try:
                    compiled = re.compile(pattern)
                except re.error as error:
                    made += 1
                    yield {**case, "error": error.msg, "pos": error.pos}
                    continue
                except (OverflowError, RecursionError, ValueError) as error:
                    made += 1
                    yield {**case, "error": str(error), "pos": None}
                    continue
            if caught:
                case["warnings"] = [[w.category.__name__, str(w.message)] for w in caught]
            for text in inputs:
                row = {**case, "s": text, "full": spans(compiled.fullmatch(text)), "match": spans(compiled.match(text)),
                       "search": spans(compiled.search(text))}
                made += 1
                yield row
        except TooSlow:
            continue
        except SystemError as error:
            print(f"left out {pattern!r}: {error}", file=sys.stderr)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


SINGLE = [r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", ".", "[^a]", r"[\w-]", r"[^\W\d_]", r"(?a)\w", r"(?a)\W", r"(?a)\d", r"(?a)\s",
          "(?i)[a-z]", "(?i)[^a-z]", "(?ia)[a-z]", "(?i)[\u0370-\u03ff]", "(?i)[\u0400-\U0001ffff]", "(?i)[\U00010400-\U00010410]",
          "(?ia)[\U00010400-\U00010410]", "(?i)[^\U00010410-\U00010430x]", "(?i)[\W\u1e9e]", "(?i)[\u0130\u0131]", r"(?i)[\w]",
          r"(?s:.)", r"[\s\S]", "[\ud800-\udfff]"]


def boundaries(holds):
    found, before = [], False
    for code in range(sys.maxunicode + 1):
        now = holds(chr(code)) is not None
        if now != before:
            found.append(code)
            before = now
    return found


def characters():
    cased = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if c.lower() != c or c.upper() != c)
    patterns = [form % c for c in cased for form in ("(?i)%s", "(?i)[%sb]", "(?ia)%s")]
    return {
        "cases": [{"p": p, "boundaries": boundaries(re.compile(p).fullmatch)} for p in SINGLE],
        "letters": cased,
        "cased": [{"p": p, "matches": "".join(re.findall(p, cased))} for p in patterns],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--texts", type=int, default=3, help="texts per pattern")
    parser.add_argument("--characters", action="store_true", help="try single characters instead")
    options = parser.parse_args()
    if options.characters:
        json.dump({"python": sys.version.split()[0], **characters()}, sys.stdout)
        return
    rows = list(cases(options.seed, options.count, options.texts))
    json.dump({"python": sys.version.split()[0], "seed": options.seed, "cases": rows}, sys.stdout)


if __name__ == "__main__":
    main()
