"""Records frozen weights in codes of 8 and 4 bits, and products with them, as NumPy computes them.

    python scripts/record_quantization.py --out test/vectors/quantization.json.gz [--seed N]

One gzip-compressed JSON array. An entry is

    {case, bits, weight [out][in], codes [out][in], scales [out], error, x [rows][in], y [rows][out], dy [rows][out], dx [rows][in]}

`codes` and `scales` are the symmetric codes of each row of the weight, `error` is |W - codes scales| / |W|. `y` is x Wq^T and
`dx` is dy Wq for the weight Wq that the codes stand for, both with the rows of the left factor in codes of 8 bits too: what
products of integers give. For `dx`, dy times the scales is what is rounded, as the codes alone serve as right factor.

Of 4 bits, `codes` [out][in / 2] are bytes of two signed numbers each, the first in the lower half, `scales` [out][in / 32] are of
blocks, and nothing but the weight is rounded.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from pathlib import Path

import numpy as np

Array = np.ndarray


def rows_in_codes(values: Array) -> tuple[Array, Array]:
    """Codes in [-127, 127] and a float32 scale for each row; a row of zeros has scale 1."""
    largest = np.abs(values).max(axis=1)
    scales = np.where(largest == 0, 1, largest / 127).astype(np.float32)
    return np.rint(values.astype(np.float64) / scales[:, None].astype(np.float64)).astype(np.int64), scales


def product(left: Array, right: Array) -> Array:
    """left right, rows of left in codes of 8 bits; right are whole numbers."""
    largest = np.abs(left).max(axis=1, keepdims=True).astype(np.float32)
    scales = np.where(largest == 0, np.float32(1), largest) * np.float32(1 / 127)
    codes = np.rint(left.astype(np.float32) / scales).astype(np.int64)
    return (codes @ right) * scales.astype(np.float64)


def record(name: str, weight: Array, x: Array, dy: Array) -> dict[str, object]:
    weight, x, dy = (value.astype(np.float32) for value in (weight, x, dy))
    codes, scales = rows_in_codes(weight)
    made = codes * scales[:, None].astype(np.float64)
    error = np.linalg.norm(weight - made) / np.linalg.norm(weight.astype(np.float64))
    y = product(x, codes.T) * scales[None].astype(np.float64)
    dx = product(dy * scales[None], codes)
    arrays = {"weight": weight, "codes": codes, "scales": scales, "x": x, "y": y, "dy": dy, "dx": dx}
    return {"case": name, "bits": 8, "error": float(error), **{key: value.tolist() for key, value in arrays.items()}}


def record_blocks(name: str, weight: Array, x: Array, dy: Array, block: int = 32) -> dict[str, object]:
    weight, x, dy = (value.astype(np.float32) for value in (weight, x, dy))
    blocks = weight.reshape(len(weight), -1, block)
    largest = np.abs(blocks).max(axis=2)
    scales = np.where(largest == 0, 1, largest / 7).astype(np.float32)
    numbers = np.rint(blocks.astype(np.float64) / scales[..., None].astype(np.float64)).astype(np.int64)
    made = (numbers * scales[..., None].astype(np.float64)).reshape(weight.shape)
    halves = numbers.reshape(len(weight), -1, 2) & 15
    codes = halves[..., 0] | (halves[..., 1] << 4)
    error = np.linalg.norm(weight - made) / np.linalg.norm(weight.astype(np.float64))
    arrays = {"weight": weight, "codes": codes, "scales": scales, "x": x, "y": x @ made.T, "dy": dy, "dx": dy @ made}
    return {"case": name, "bits": 4, "error": float(error), **{key: value.tolist() for key, value in arrays.items()}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=31)
    options = parser.parse_args()
    source = np.random.default_rng(options.seed)

    def normal(rows: int, columns: int) -> Array:
        return source.standard_normal((rows, columns))

    uneven = np.exp(2 * source.standard_normal((7, 1)))
    zero_row = normal(6, 32) * (np.arange(6) != 2)[:, None]
    entries = [
        record("bell-shaped", normal(12, 40), normal(5, 40), normal(5, 12)),
        record("uneven rows", normal(9, 48), normal(7, 48) * uneven, normal(7, 9) * uneven[::-1]),
        record("uneven output channels", normal(10, 24) * np.exp(2 * normal(10, 1)), normal(6, 24), normal(6, 10)),
        record("rows of zeros", zero_row, normal(4, 32) * (np.arange(4) != 1)[:, None], normal(4, 6)),
        record("one row, odd sizes", normal(5, 17), normal(1, 17), normal(1, 5)),
        record_blocks("blocks", normal(6, 96), normal(5, 96), normal(5, 6)),
        record_blocks("a block of zeros", normal(4, 64) * (np.arange(64) >= 32), normal(3, 64), normal(3, 4)),
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    payload = json.dumps(entries, separators=(",", ":")).encode()
    options.out.write_bytes(gzip.compress(payload, mtime=0))
    manifest = {
        "script": "scripts/record_quantization.py",
        "seed": options.seed,
        "versions": {"python": sys.version.split()[0], "numpy": np.__version__},
        "count": len(entries),
    }
    stem = options.out.name.removesuffix(".json.gz")
    options.out.with_name(f"{stem}.manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"{len(entries)} cases, {options.out.stat().st_size} bytes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
