#!/usr/bin/env python3
"""Write src/regex/unicode-tables.ts and src/regex/unicode-names.ts: what CPython 3.11's `re` knows about characters.

usage: python3.11 scripts/make-regex-tables.py src/regex && npx biome check --write src/regex

The tables are generated, not derived from JavaScript's \\p{...}, because engines differ in their Unicode version
while Python 3.11 has Unicode 14 and `sre` folds case with its own simple mappings.
"""
import re
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import _sre
from re import _casefix, _constants

LIMIT = 0x110000
DIGITS36 = "0123456789abcdefghijklmnopqrstuvwxyz"
TOKENS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-"
ONE_CHARACTER = 40  # words with an index below this take one character, the others two

NAME_BLOCKS = [
    (0x0020, 0x007F), (0x00A0, 0x0250), (0x0370, 0x0400), (0x0400, 0x0460), (0x2000, 0x2070), (0x20A0, 0x20C1),
    (0x2100, 0x2150), (0x2190, 0x2200), (0x2200, 0x2300), (0x2600, 0x2700), (0x3040, 0x3100), (0x1F600, 0x1F650),
]
ALIASES = """NULL|NUL|START OF HEADING|SOH|START OF TEXT|STX|END OF TEXT|ETX|END OF TRANSMISSION|EOT|ENQUIRY|ENQ|
ACKNOWLEDGE|ACK|ALERT|BEL|BACKSPACE|BS|CHARACTER TABULATION|HORIZONTAL TABULATION|HT|TAB|LINE FEED|NEW LINE|
END OF LINE|LF|NL|EOL|LINE TABULATION|VERTICAL TABULATION|VT|FORM FEED|FF|CARRIAGE RETURN|CR|SHIFT OUT|
LOCKING-SHIFT ONE|SO|SHIFT IN|LOCKING-SHIFT ZERO|SI|DATA LINK ESCAPE|DLE|DEVICE CONTROL ONE|DC1|DEVICE CONTROL TWO|
DC2|DEVICE CONTROL THREE|DC3|DEVICE CONTROL FOUR|DC4|NEGATIVE ACKNOWLEDGE|NAK|SYNCHRONOUS IDLE|SYN|
END OF TRANSMISSION BLOCK|ETB|CANCEL|CAN|END OF MEDIUM|EOM|EM|SUBSTITUTE|SUB|ESCAPE|ESC|INFORMATION SEPARATOR FOUR|
FILE SEPARATOR|FS|INFORMATION SEPARATOR THREE|GROUP SEPARATOR|GS|INFORMATION SEPARATOR TWO|RECORD SEPARATOR|RS|
INFORMATION SEPARATOR ONE|UNIT SEPARATOR|US|SP|DELETE|DEL|NEXT LINE|NEL|NBSP|SHY|ZWSP|ZWNJ|ZWJ|LRM|RLM|BOM|
BYTE ORDER MARK|ZERO WIDTH NO-BREAK SPACE|REPLACEMENT CHARACTER|WJ|NNBSP|CGJ""".replace("\n", "").split("|")


def base36(n):
    return (base36(n // 36) if n >= 36 else "") + DIGITS36[n % 36]


def boundaries(holds):
    """Code points where `holds` changes its value, starting from False."""
    found, before = [], False
    for code in range(LIMIT):
        now = holds(chr(code))
        if now != before:
            found.append(code)
            before = now
    if before:
        found.append(LIMIT)
    return found


def deltas(numbers):
    return " ".join(base36(b - a) for a, b in zip([0, *numbers], numbers))


def mapping_runs(function):
    """`start length step delta` groups: start, start + step, ... (length of them) map to themselves plus delta."""
    runs, last = [], 0
    for code in range(LIMIT):
        delta = function(code) - code
        if not delta:
            continue
        if runs:
            start, length, step, run_delta = runs[-1]
            distance = code - (start + (length - 1) * step)
            if run_delta == delta and (distance == step or (length == 1 and distance <= 2)):
                runs[-1] = (start, length + 1, distance, delta)
                continue
        runs.append((code, 1, 1, delta))
    words = []
    for start, length, step, delta in runs:
        sign = "-" if delta < 0 else ""
        words.append(f"{base36(start - last)},{base36(length)},{step},{sign}{base36(abs(delta))}")
        last = start
    return " ".join(words)


def tables():
    word, digit, space = (re.compile(p) for p in (r"\w", r"\d", r"\s"))
    yield "WORD", r"`\w`: boundaries of the ranges, each as the distance from the one before.", deltas(
        boundaries(lambda c: bool(word.match(c))))
    yield "DIGIT", r"`\d`: decimal digits; every range holds whole runs of 0 to 9.", deltas(
        boundaries(lambda c: bool(digit.match(c))))
    yield "SPACE", r"`\s`.", deltas(boundaries(lambda c: bool(space.match(c))))
    yield "IDENTIFIER_START", "First character of an identifier (`str.isidentifier`).", deltas(
        boundaries(str.isidentifier))
    yield "IDENTIFIER_PART", "Later characters of an identifier.", deltas(
        boundaries(lambda c: ("a" + c).isidentifier()))
    yield "LOWER", "Simple lower case: `start,length,step,delta`, start as the distance from the one before.", (
        mapping_runs(_sre.unicode_tolower))
    # _sre gives no upper-case function: str.upper(), whose first character is what sre's simple mapping returns.
    yield "UPPER", "Simple upper case, in the same form.", mapping_runs(lambda code: ord(chr(code).upper()[0]))
    yield "EXTRA_CASES", "Lower-case letters that share an upper case: `code:other,...`.", " ".join(
        f"{base36(code)}:{','.join(map(base36, others))}" for code, others in _casefix._EXTRA_CASES.items())


def encode(index):
    if index < ONE_CHARACTER:
        return TOKENS[index]
    lead, rest = divmod(index - ONE_CHARACTER, 64)
    return TOKENS[ONE_CHARACTER + lead] + TOKENS[rest]


def names():
    blocks = [(start, [unicodedata.name(chr(c), "") for c in range(start, end)]) for start, end in NAME_BLOCKS]
    counts = Counter(w for _, block in blocks for name in block for w in name.split())
    order = sorted(counts, key=lambda w: (-counts[w], w))
    assert len(order) <= ONE_CHARACTER + (64 - ONE_CHARACTER) * 64
    index = {w: i for i, w in enumerate(order)}
    lines = [(base36(start), ",".join("".join(encode(index[w]) for w in name.split()) for name in block))
             for start, block in blocks]
    aliases = {name: ord(unicodedata.lookup(name)) for name in ALIASES if known(name)}
    return " ".join(order), lines, aliases


def known(name):
    try:
        return len(unicodedata.lookup(name)) == 1
    except KeyError:
        return False


def main():
    folder = Path(sys.argv[1])
    version = ".".join(map(str, sys.version_info[:3]))
    head = (f"// Generated by scripts/make-regex-tables.py with Python {version} "
            f"(Unicode {unicodedata.unidata_version}, sre {_constants.MAGIC}). Do not edit.\n")
    text = head
    for name, comment, value in tables():
        text += f'\n/** {comment} */\nexport const {name} =\n  "{value}";\n'
    (folder / "unicode-tables.ts").write_text(text)

    words, blocks, aliases = names()
    text = head + (
        "\n/** Words of character names, most frequent first. */\n"
        f'export const NAME_WORDS =\n  "{words}";\n'
        "\n/** Blocks of consecutive characters: first code point in base 36, names as word indexes (see `unicode.ts`). */\n"
        "export const NAME_BLOCKS: readonly (readonly [start: string, names: string])[] = [\n"
        + "".join(f'  ["{start}", "{block}"],\n' for start, block in blocks) + "];\n"
        "\n/** Names and abbreviations of control and format characters. */\n"
        "export const NAME_ALIASES =\n"
        f'  "{"|".join(f"{name}:{base36(code)}" for name, code in aliases.items())}";\n')
    (folder / "unicode-names.ts").write_text(text)


if __name__ == "__main__":
    main()
