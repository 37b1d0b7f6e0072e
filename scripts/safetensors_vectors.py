"""Records what the Python safetensors library (the Rust crate) writes and accepts, for test/checkpoint/.

    python scripts/safetensors_vectors.py        # writes test/vectors/checkpoint/

- `*.safetensors`: files written by it; `written.json` holds their contents, from which ours are written.
- `verdicts.json`: files, many of them malformed, with its verdict on each.
"""

import base64
import json
import pathlib
import platform
import random
import struct

import safetensors
import safetensors.torch
import torch

SEED = 0
OUT = pathlib.Path(__file__).parent.parent / "test" / "vectors" / "checkpoint"

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float8e4m3fn": torch.float8_e4m3fn,
    "float8e5m2": torch.float8_e5m2,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint64": torch.uint64,
    "uint32": torch.uint32,
    "uint16": torch.uint16,
    "uint8": torch.uint8,
    "bool": torch.bool,
}


def random_tensor(rng, dtype, shape):
    count = 1
    for dim in shape:
        count *= dim
    size = torch.empty(0, dtype=DTYPES[dtype]).element_size()
    top = 1 if dtype == "bool" else 255
    data = torch.tensor([rng.randint(0, top) for _ in range(count * size)], dtype=torch.uint8)
    return data.view(DTYPES[dtype]).reshape(shape)


def written(rng):
    """File name -> ({tensor name: (dtype, shape)}, metadata)."""
    odd = ["a\"b\\c/d", "\u0000\u0001\b\f\n\r\t\u001f\u007f", "", "__proto__", "constructor", "0", "10", "9"]
    order = ["z", "a", "Z", "é", "\ue000", "\U00010000", "\uffff", "\u2028", "日本", "a.b", "a", "ab"]
    return {
        "every-dtype": ({d: (d, [2, 3]) for d in DTYPES}, {"format": "pt"}),
        "same-names-order": ({f"t{i % 7}.{d}": (d, [i % 4]) for i, d in enumerate(DTYPES)}, None),
        "empty": ({}, None),
        "empty-with-metadata": ({}, {"framework": "pt"}),
        "empty-metadata": ({"x": ("uint8", [1])}, {}),
        "scalars-and-zero-sizes": (
            {"scalar": ("float32", []), "none": ("int64", [0]), "some": ("bfloat16", [3, 0, 2]), "one": ("bool", [1, 1])},
            {"format": "pt"},
        ),
        "odd-names": ({n: ("uint8", [i % 3]) for i, n in enumerate(odd)}, None),
        "unicode-order": ({n: ("int16", [1]) for n in order}, None),
        "odd-metadata": ({"x": ("float16", [1])}, {"ключ\n\"": "значение \U0001f600 \u0001\\"}),
        "several-metadata": ({"x": ("float16", [1])}, {"b": "2", "a": "1", "é": "3", "Z": ""}),
        "padding": ({"attn0": ("float32", [1, 1, 2, 3])}, None),
    }


def save(tensors, metadata):
    """Python keeps metadata in a hash map with a random order; of the possible files, the sorted one."""
    while True:
        data = safetensors.torch.save(tensors, metadata)
        length = struct.unpack("<Q", data[:8])[0]
        keys = list(json.loads(data[8 : 8 + length]).get("__metadata__", {}))
        if keys == sorted(keys):
            return data


def file_of(header, data=b""):
    header = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(header)) + header + data


def handwritten():
    z16 = bytes(16)
    info = '{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}'

    def one(info):
        return file_of('{"test":' + info + "}", z16)

    cases = {
        # The tests of safetensors/src/tensor.rs, under their names.
        "test_empty_shapes_allowed": file_of('{"test":{"dtype":"I32","shape":[],"data_offsets":[0,4]}}', bytes(4)),
        "test_deserialization": one(info),
        "test_json_attack": file_of(
            json.dumps({f"weight_{i}": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]} for i in range(10)}),
            z16,
        ),
        "test_metadata_incomplete_buffer": one(info) + b"extra_bogus_data_for_polyglot_file",
        "test_metadata_incomplete_buffer (missing data)": one(info)[:-2],
        "test_header_too_large": b"<\x00\x00\x00\x00\xff\xff\xff" + one(info)[8:],
        "test_header_too_small": b"",
        "test_invalid_header_length": b"<\x00\x00\x00\x00\x00\x00\x00",
        "test_invalid_header_non_utf8": file_of(b"\xff"),
        "test_invalid_header_not_json": file_of("{"),
        "test_whitespace_padded_header": file_of("{}\r \t\n"),
        "test_whitespace_leading_padded_header": file_of("\t\n{}\r "),
        "test_zero_sized_tensor": file_of('{"test":{"dtype":"I32","shape":[2,0],"data_offsets":[0, 0]}}'),
        "test_invalid_info": file_of('{"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0, 4]}}'),
        "test_validation_overflow (shape)": one('{"dtype":"I32","shape":[2,18446744073709551614],"data_offsets":[0,16]}'),
        "test_validation_overflow (bytes)": one('{"dtype":"I32","shape":[2,9223372036854775807],"data_offsets":[0,16]}'),
        # More.
        "header of 100,000,000 bytes announced": struct.pack("<Q", 100_000_000) + b"{}",
        "header of 100,000,001 bytes announced": struct.pack("<Q", 100_000_001) + b"{}",
        "seven bytes": bytes(7),
        "empty header": file_of(""),
        "byte order mark": file_of(b"\xef\xbb\xbf{}"),
        "overlong UTF-8": file_of(b'{"\xc0\x80":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
        "UTF-8 surrogate": file_of(b'{"\xed\xa0\x80":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
        "escaped half surrogate": file_of('{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
        "escaped surrogate pair": file_of('{"\\ud83d\\ude00":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
        "escaped low surrogate first": file_of('{"\\ude00\\ud83d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
        "bad escape": file_of('{"\\x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
        "control character in a name": file_of(b'{"\x01":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
        "trailing comma": file_of('{"test":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},}'),
        "single quotes": file_of("{'test':{}}"),
        "text after the object": file_of("{}x"),
        "NUL after the object": file_of("{}\x00"),
        "two objects": file_of("{}{}"),
        "vertical tab padding": file_of("{}\v"),
        "array": file_of("[]"),
        "number": file_of("1"),
        "null": file_of("null"),
        "tensor is null": file_of('{"test":null}'),
        "tensor is a number": file_of('{"test":1}'),
        "no dtype": one('{"shape":[2,2],"data_offsets":[0,16]}'),
        "no shape": one('{"dtype":"I32","data_offsets":[0,16]}'),
        "no data_offsets": one('{"dtype":"I32","shape":[2,2]}'),
        "another field": one('{"dtype":"I32","shape":[2,2],"data_offsets":[0,16],"more":{"a":[1.5e3,-2,true,null]}}'),
        "another field twice": one('{"dtype":"I32","shape":[2,2],"data_offsets":[0,16],"more":1,"more":2}'),
        "dtype twice": one('{"dtype":"I32","dtype":"I32","shape":[2,2],"data_offsets":[0,16]}'),
        "tensor twice": file_of(f'{{"test":{info},"test":{info}}}', z16),
        "tensor twice, differently spelled": file_of(f'{{"test":{info},"t\\u0065st":{info}}}', z16),
        "metadata twice": file_of(f'{{"__metadata__":{{}},"__metadata__":{{}},"test":{info}}}', z16),
        "metadata key twice": file_of('{"__metadata__":{"a":"1","a":"2"}}'),
        "unknown dtype": one('{"dtype":"F31","shape":[2,2],"data_offsets":[0,16]}'),
        "lower-case dtype": one('{"dtype":"f32","shape":[2,2],"data_offsets":[0,16]}'),
        "dtype is a number": one('{"dtype":32,"shape":[2,2],"data_offsets":[0,16]}'),
        "F4": file_of('{"test":{"dtype":"F4","shape":[1,2],"data_offsets":[0,1]}}', b"\0"),
        "F4, misaligned": file_of('{"test":{"dtype":"F4","shape":[1,3],"data_offsets":[0,2]}}', b"\0\0"),
        "C64": file_of('{"test":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}', bytes(8)),
        "F8_E8M0": file_of('{"test":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[0,1]}}', bytes(1)),
        "negative dimension": one('{"dtype":"I32","shape":[-2,-2],"data_offsets":[0,16]}'),
        "negative zero dimension": file_of('{"test":{"dtype":"I32","shape":[-0],"data_offsets":[0,0]}}'),
        "fraction": one('{"dtype":"I32","shape":[2.0,2],"data_offsets":[0,16]}'),
        "exponent": one('{"dtype":"I32","shape":[2e0,2],"data_offsets":[0,16]}'),
        "leading zero": one('{"dtype":"I32","shape":[02,2],"data_offsets":[0,16]}'),
        "plus sign": one('{"dtype":"I32","shape":[+2,2],"data_offsets":[0,16]}'),
        "dimension is a string": one('{"dtype":"I32","shape":["2",2],"data_offsets":[0,16]}'),
        "shape is a number": one('{"dtype":"I32","shape":4,"data_offsets":[0,16]}'),
        "shape is null": one('{"dtype":"I32","shape":null,"data_offsets":[0,16]}'),
        "NaN": one('{"dtype":"I32","shape":[NaN],"data_offsets":[0,16]}'),
        "dimension of 2^64": one('{"dtype":"I32","shape":[18446744073709551616],"data_offsets":[0,16]}'),
        "overflow before a zero": file_of(
            '{"test":{"dtype":"I32","shape":[9223372036854775807,4,0],"data_offsets":[0,0]}}'
        ),
        "zero before an overflow": file_of(
            '{"test":{"dtype":"I32","shape":[0,9223372036854775807,4],"data_offsets":[0,0]}}'
        ),
        "2^53 + 1 elements, rounded": one('{"dtype":"U8","shape":[9007199254740993],"data_offsets":[0,9007199254740992]}'),
        "one offset": one('{"dtype":"I32","shape":[2,2],"data_offsets":[16]}'),
        "three offsets": one('{"dtype":"I32","shape":[2,2],"data_offsets":[0,16,16]}'),
        "offsets reversed": one('{"dtype":"I32","shape":[2,2],"data_offsets":[16,0]}'),
        "offset of 2^64 - 16": one('{"dtype":"I32","shape":[2,2],"data_offsets":[18446744073709551600,0]}'),
        "negative offset": one('{"dtype":"I32","shape":[2,2],"data_offsets":[-16,0]}'),
        "begins late": file_of('{"test":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}', bytes(8)),
        "hole": file_of(
            '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[6,10]}}',
            bytes(10),
        ),
        "overlap": file_of(
            '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}',
            bytes(6),
        ),
        "zero-size tensor inside another": file_of(
            '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}}',
            bytes(4),
        ),
        "zero-size tensors between": file_of(
            '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[0],"data_offsets":[4,4]},'
            '"c":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
            bytes(4),
        ),
        "by name, not by offset": file_of(
            '{"a":{"dtype":"U8","shape":[4],"data_offsets":[1,5]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            bytes(5),
        ),
        "unaligned data": file_of(
            '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F64","shape":[1],"data_offsets":[1,9]}}',
            bytes(9),
        ),
        "metadata null": file_of('{"__metadata__":null}'),
        "metadata is a string": file_of('{"__metadata__":"x"}'),
        "metadata value is a number": file_of('{"__metadata__":{"a":1}}'),
        "metadata value is null": file_of('{"__metadata__":{"a":null}}'),
        "metadata value is an object": file_of('{"__metadata__":{"a":{}}}'),
        "name __proto__": file_of(f'{{"__proto__":{info}}}', z16),
        "empty name": file_of(f'{{"":{info}}}', z16),
        "deep nesting": one('{"dtype":"I32","shape":[2,2],"data_offsets":[0,16],"more":' + "[" * 200 + "]" * 200 + "}"),
        "tensor as an array": one('["I32",[2,2],[0,16]]'),
    }
    return cases


def mutated(rng, valid, count):
    """Bytes of valid files overwritten, inserted, deleted and swapped; the length often set right again."""
    tokens = [b'"', b"{", b"}", b"[", b"]", b",", b":", b"0", b"1", b"-", b".", b"e", b"\\", b" ", b"null", b"[]", b"99"]
    for _ in range(count):
        data = bytearray(rng.choice(valid))
        length = struct.unpack("<Q", data[:8])[0]
        header, body = data[8 : 8 + length], data[8 + length :]
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            at = rng.randrange(len(header) + 1)
            kind = rng.randrange(5)
            if kind == 0:
                header[at:at] = rng.choice(tokens)
            elif kind == 1:
                header[at : at + rng.randint(1, 6)] = b""
            elif kind == 2:
                header[at : at + 1] = rng.choice(tokens)
            elif kind == 3 and at < len(header):
                header[at] = rng.randrange(256)
            else:
                digits = [i for i, c in enumerate(header) if 0x30 <= c <= 0x39]
                if digits:
                    header[rng.choice(digits)] = rng.randrange(0x30, 0x3A)
        if rng.random() < 0.1:
            body = body[: rng.randrange(len(body) + 1)]
        if rng.random() < 0.8:
            length = len(header)
        yield struct.pack("<Q", length) + bytes(header) + bytes(body)


def verdict(data):
    try:
        return {"tensors": sorted(name for name, _ in safetensors.deserialize(data))}
    except safetensors.SafetensorError as error:
        return {"error": str(error)}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    contents, files = {}, []
    for name, (tensors, metadata) in written(rng).items():
        tensors = {n: random_tensor(rng, d, s) for n, (d, s) in tensors.items()}
        data = save(tensors, metadata)
        (OUT / f"{name}.safetensors").write_bytes(data)
        files.append(data)
        dtype_names = {t: n for n, t in DTYPES.items()}
        contents[name] = {
            "metadata": metadata,
            "tensors": [
                {
                    "name": n,
                    "dtype": dtype_names[t.dtype],
                    "shape": list(t.shape),
                    "data": base64.b64encode(bytes(t.reshape(-1).view(torch.uint8).tolist())).decode(),
                }
                for n, t in tensors.items()
            ],
        }
    (OUT / "written.json").write_text(json.dumps(contents, indent=1) + "\n")
    cases = handwritten()
    small = [f for f in files if len(f) < 700] + [cases["another field"], cases["zero-size tensors between"]]
    cases |= {f"mutation {i}": data for i, data in enumerate(mutated(rng, small, 1000))}
    verdicts = [{"name": n, "file": base64.b64encode(d).decode(), **verdict(d)} for n, d in cases.items()]
    lines = ",\n".join(json.dumps(v) for v in verdicts)
    (OUT / "verdicts.json").write_text(f"[\n{lines}\n]\n")
    manifest = {
        "script": "scripts/safetensors_vectors.py",
        "seed": SEED,
        "safetensors": safetensors.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    (OUT / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    accepted = sum("tensors" in v for v in verdicts)
    print(f"{len(files)} files, {len(verdicts)} verdicts, of which {accepted} accept")


main()
