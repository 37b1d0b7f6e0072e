"""Write parquet files with the columns that Hugging Face datasets writes: text, lists, chats and pictures.

    python scripts/record_parquet.py

Writes test/vectors/data/parquet/*.parquet and rows.json with what is in them. The standard library is all that it needs: pages
are plainly encoded, with definition and repetition levels as the format's specification has them
(https://github.com/apache/parquet-format), and pictures are those of test/vectors/processing.
"""

import gzip
import json
import struct
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "test" / "vectors"
OUT = ROOT / "data" / "parquet"
PICTURES = ["rgb.png", "cmyk.jpg", "animated.gif", "gray-16bit.png", "gray-alpha.png"]

INT64, BYTE_ARRAY = 2, 6
OPTIONAL, REPEATED = 1, 2
UTF8, LIST = 0, 3
CODECS = {"plain": 0, "snappy": 1, "gzip": 2}


# --- Thrift's compact protocol


def varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def zigzag(n: int) -> bytes:
    return varint(n << 1 if n >= 0 else (-n << 1) - 1)


class Struct(dict):
    """Field number to value: int (i32), I64, str, bytes, list or Struct."""


class I64(int):
    pass


def kind(value) -> int:
    return {I64: 6, int: 5, str: 8, bytes: 8, list: 9, Struct: 12}[type(value)]


def encode(value) -> bytes:
    if isinstance(value, int):
        return zigzag(value)
    if isinstance(value, (str, bytes)):
        data = value.encode() if isinstance(value, str) else value
        return varint(len(data)) + data
    if isinstance(value, list):
        size, item = len(value), kind(value[0])
        head = bytes([size << 4 | item]) if size < 15 else bytes([0xF0 | item]) + varint(size)
        return head + b"".join(encode(entry) for entry in value)
    out, last = b"", 0
    for field, entry in sorted(value.items()):
        delta = field - last
        out += bytes([delta << 4 | kind(entry)]) if delta < 16 else bytes([kind(entry)]) + zigzag(field)
        out += encode(entry)
        last = field
    return out + b"\0"


# --- Columns: nested optional fields, shredded into leaves


def text():
    return {"type": BYTE_ARRAY, "converted": UTF8}


def binary():
    return {"type": BYTE_ARRAY}


def integer():
    return {"type": INT64}


def record(**fields):
    return {"fields": fields}


def items(element):
    return {"element": element}


def schema_of(name: str, node: dict) -> list[Struct]:
    if "fields" in node:
        children = [entry for key, child in node["fields"].items() for entry in schema_of(key, child)]
        return [Struct({3: OPTIONAL, 4: name, 5: len(node["fields"])}), *children]
    if "element" in node:
        return [
            Struct({3: OPTIONAL, 4: name, 5: 1, 6: LIST}),
            Struct({3: REPEATED, 4: "list", 5: 1}),
            *schema_of("element", node["element"]),
        ]
    leaf = Struct({1: node["type"], 3: OPTIONAL, 4: name})
    if "converted" in node:
        leaf[6] = node["converted"]
        leaf[10] = Struct({1: Struct()})
    return [leaf]


def leaves_of(name: str, node: dict, path=(), repeated=0, defined=0) -> list[dict]:
    path, defined = (*path, name), defined + 1
    if "fields" in node:
        return [
            leaf
            for key, child in node["fields"].items()
            for leaf in leaves_of(key, child, path, repeated, defined)
        ]
    if "element" in node:
        return leaves_of("element", node["element"], (*path, "list"), repeated + 1, defined + 1)
    return [{**node, "path": path, "repeated": repeated, "defined": defined}]


def shred(value, node, path, repetition=0, definition=0, depth=0):
    """(repetition level, definition level, value) of one leaf of one row. Dremel, section 4."""
    if value is None:
        return [(repetition, definition, None)]
    definition += 1
    if "fields" in node:
        key = path[1]
        return shred(value.get(key), node["fields"][key], path[1:], repetition, definition, depth)
    if "element" in node:
        if not value:
            return [(repetition, definition, None)]
        out = []
        for i, entry in enumerate(value):
            level = repetition if i == 0 else depth + 1
            out += shred(entry, node["element"], path[2:], level, definition + 1, depth + 1)
        return out
    return [(repetition, definition, value)]


def levels(values: list[int], highest: int) -> bytes:
    """Runs of equal levels, each as varint(2 * count) and the level."""
    if highest == 0:
        return b""
    out, start = b"", 0
    for i in range(1, len(values) + 1):
        if i == len(values) or values[i] != values[start]:
            out += varint(i - start << 1) + bytes([values[start]])
            start = i
    return struct.pack("<I", len(out)) + out


def plain(value) -> bytes:
    if isinstance(value, int):
        return struct.pack("<q", value)
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<I", len(data)) + data


def compress(data: bytes, codec: str) -> bytes:
    if codec == "gzip":
        return gzip.compress(data, mtime=0)
    if codec == "snappy":  # literals alone, at most 65,536 bytes each
        out = varint(len(data))
        for start in range(0, len(data), 1 << 16):
            part = data[start : start + (1 << 16)]
            out += bytes([61 << 2]) + struct.pack("<H", len(part) - 1) + part
        return out
    return data


def write(path: Path, columns: dict, rows: list[dict], codec: str, group_rows: int) -> None:
    data = bytearray(b"PAR1")
    groups = []
    for start in range(0, len(rows), group_rows):
        part = rows[start : start + group_rows]
        chunks, total = [], 0
        for name, node in columns.items():
            for leaf in leaves_of(name, node):
                triples = [triple for row in part for triple in shred(row.get(name), node, leaf["path"])]
                page = levels([r for r, _, _ in triples], leaf["repeated"])
                page += levels([d for _, d, _ in triples], leaf["defined"])
                page += b"".join(plain(value) for _, _, value in triples if value is not None)
                packed = compress(page, codec)
                counts = Struct({1: len(triples), 2: 0, 3: 3, 4: 3})
                header = encode(Struct({1: 0, 2: len(page), 3: len(packed), 5: counts}))
                offset = len(data)
                data += header + packed
                meta = Struct(
                    {
                        1: leaf["type"],
                        2: [0, 3],
                        3: list(leaf["path"]),
                        4: CODECS[codec],
                        5: I64(len(triples)),
                        6: I64(len(header) + len(page)),
                        7: I64(len(header) + len(packed)),
                        9: I64(offset),
                    }
                )
                total += len(header) + len(page)
                chunks.append(Struct({2: I64(offset), 3: meta}))
        groups.append(Struct({1: chunks, 2: I64(total), 3: I64(len(part))}))
    root = Struct({4: "schema", 5: len(columns)})
    schema = [root, *(entry for name, node in columns.items() for entry in schema_of(name, node))]
    footer = encode(Struct({1: 1, 2: schema, 3: I64(len(rows)), 4: groups, 6: "scripts/record_parquet.py"}))
    path.write_bytes(bytes(data) + footer + struct.pack("<I", len(footer)) + b"PAR1")


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    picture = {name: (ROOT / "processing" / "images" / name).read_bytes() for name in PICTURES}
    image = record(bytes=binary(), path=text())
    captions = [
        {"image": {"bytes": picture[name], "path": name}, "text": f"caption {i} ✓"}
        for i, name in enumerate(PICTURES)
    ]
    captions.append({"image": {"bytes": None, "path": "../../processing/images/rgb.png"}, "text": "by its path"})
    sets = {
        "captions": ({"image": image, "text": text()}, captions, "snappy", 2),
        "binary": (
            {"image": binary(), "prompt": text(), "completion": text(), "unused": binary()},
            [
                {"image": data, "prompt": "<CAPTION>", "completion": name, "unused": b"\xff\xfe"}
                for name, data in picture.items()
            ],
            "gzip",
            3,
        ),
        "pairs": (
            {"prompt": text(), "completion": text(), "id": integer()},
            [{"prompt": f"Define {i}:", "completion": f" number {i}", "id": 10 * i} for i in range(25)],
            "gzip",
            4,
        ),
        "ids": (
            {"input_ids": items(integer()), "labels": items(integer())},
            [{"input_ids": list(range(1, i + 2)), "labels": [-100] * i + [7]} for i in range(9)],
            "plain",
            5,
        ),
        "chats": (
            {"messages": items(record(role=text(), content=text()))},
            [
                {
                    "messages": [
                        {"role": "user", "content": f"Who is {i}?"},
                        {"role": "assistant", "content": f"Nobody {i}."},
                    ]
                    * (i + 1)
                }
                for i in range(3)
            ],
            "snappy",
            2,
        ),
        "nulls": (
            {"text": text(), "caption": text()},
            [{"text": "first"}, {"caption": "second"}, {"text": "third"}],
            "plain",
            2,
        ),
    }
    recorded = {}
    for name, (columns, rows, codec, group_rows) in sets.items():
        write(OUT / f"{name}.parquet", columns, rows, codec, group_rows)
        if name not in ("captions", "binary"):
            recorded[name] = rows
    (OUT / "rows.json").write_text(json.dumps(recorded, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
