"""Records how PyTorch converts half-precision, 8-bit and integer tensors, for test/tensor/.

    python scripts/half_vectors.py        # writes test/vectors/tensor/
"""

import json
import pathlib
import platform

import safetensors
import safetensors.torch
import torch

SEED = 0
OUT = pathlib.Path(__file__).parent.parent / "test" / "vectors" / "tensor"


def as_float32(bits):
    return torch.tensor([b - 2**32 if b >= 2**31 else b for b in bits], dtype=torch.int32).view(torch.float32)


def narrowing_cases():
    """float32 values at, and one ulp around, every kind of rounding decision, then random bit patterns."""
    bits = [0, 1, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0x7F7F7FFF, 0x7F7F8000, 0x7F800000]
    for exponent in range(0x60, 0x92):  # around float16's subnormals, normals and overflow
        for mantissa in (0, 0x1000, 0x2000, 0x3000, 0x7FF000, 0x7FE000, 0x8000, 0x18000, 0x7F8000):
            bits += [(exponent << 23 | mantissa) + d for d in (-1, 0, 1)]
    bits += [b | 0x80000000 for b in bits]
    generator = torch.Generator().manual_seed(SEED)
    random = torch.randint(-(2**31), 2**31, (4096,), generator=generator).to(torch.int32).view(torch.float32)
    small = torch.randn(1024, generator=generator) * 2.0 ** torch.randint(-30, 18, (1024,), generator=generator)
    cases = torch.cat([as_float32(bits), random, small])
    return cases[~cases.isnan()]


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    all16 = torch.arange(2**16, dtype=torch.int32).to(torch.uint16)
    all8 = torch.arange(2**8, dtype=torch.int32).to(torch.uint8)
    narrow = narrowing_cases()
    nans = as_float32([0x7F800001, 0x7FC00000, 0x7FC12345, 0xFF802000, 0xFFFFFFFF])
    ties = [2**53 + 2**29, 2**53 + 2**29 + 1, 2**62 + 2**38, 2**62 + 2**38 + 1, 2**62 + 2**38 - 1, 2**63 - 1, 2**24 + 1]
    int64 = torch.tensor(ties + [-t for t in ties] + [0, -(2**63), 2**62 + 3 * 2**38, 2**62 + 3 * 2**38 + 1])
    tensors = {
        "float16.widened": all16.view(torch.float16).to(torch.float32),
        "bfloat16.widened": all16.view(torch.bfloat16).to(torch.float32),
        "float8e4m3fn.widened": all8.view(torch.float8_e4m3fn).to(torch.float32),
        "float8e5m2.widened": all8.view(torch.float8_e5m2).to(torch.float32),
        "narrow.float32": narrow,
        "narrow.float16": narrow.to(torch.float16),
        "narrow.bfloat16": narrow.to(torch.bfloat16),
        "nan.float32": nans,
        "nan.float16": nans.to(torch.float16),
        "integer.int64": int64,
        "integer.float32": int64.to(torch.float32),
    }
    safetensors.torch.save_file(tensors, OUT / "half.safetensors")
    manifest = {
        "script": "scripts/half_vectors.py",
        "seed": SEED,
        "torch": torch.__version__,
        "safetensors": safetensors.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    (OUT / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


main()
