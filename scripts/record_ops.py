"""Records values and gradients of operators as PyTorch computes them.

    python scripts/record_ops.py --out test/vectors/ops.json.gz [--seed N]

One gzip-compressed JSON array. An entry is

    {op, case, attrs, inputs: [tensor], outputs: [tensor], upstream: [tensor], gradients: [tensor or null]}

with tensor = {dtype, shape, data}. `op` and `attrs` have ONNX's names; what newer ONNX opsets pass as small constant
inputs (axes, shape, starts, ends, steps, split) is in `attrs` too. `upstream` is the cotangent of each output,
`gradients` the resulting cotangent of each input, null where an input has none (indices, conditions).
Inputs are float32 numbers; everything is computed in float64 and rounded once to float32. Data that is not finite is
never recorded, and neither is a case near a tie or a kink.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)

Tensor = torch.Tensor
#: op, what this case is about, attributes, inputs, the computation
OpCase = tuple[str, str, dict[str, Any], list[Tensor], Callable[..., Any]]


class Source:
    """Random inputs with values that float32 holds exactly."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape, generator=self.generator)).float().double()

    def positive(self, *shape: int, low: float = 0.3, high: float = 3.0) -> Tensor:
        return (low + (high - low) * torch.rand(shape, generator=self.generator)).float().double()

    def signed(self, *shape: int) -> Tensor:
        """Away from zero on either side."""
        sign = torch.randint(0, 2, shape, generator=self.generator) * 2 - 1
        return sign * self.positive(*shape, low=0.4, high=2.0)

    def distinct(self, *shape: int) -> Tensor:
        """No two values closer than 0.1."""
        count = math.prod(shape)
        return ((torch.randperm(count, generator=self.generator) - count / 2) * 0.1).reshape(shape).float().double()

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.generator)

    def booleans(self, *shape: int) -> Tensor:
        """As many true as false, in random order."""
        count = math.prod(shape)
        return (torch.randperm(count, generator=self.generator) % 2 == 0).reshape(shape)


def binary_cases(s: Source) -> Iterator[OpCase]:
    shapes = [
        ("same shape", (2, 3), (2, 3)),
        ("row against matrix", (2, 3, 4), (4,)),
        ("both broadcast", (2, 1, 4), (3, 1)),
        ("scalar", (2, 3), ()),
    ]
    for op, function in (("Add", torch.add), ("Sub", torch.sub), ("Mul", torch.mul)):
        for label, a, b in shapes:
            yield op, label, {}, [s.normal(*a), s.normal(*b)], function
    for label, a, b in shapes:
        yield "Div", label, {}, [s.normal(*a), s.signed(*b)], torch.div
    for label, a, b in shapes:
        yield "Pow", label, {}, [s.positive(*a), s.normal(*b)], torch.pow
    yield "Pow", "square of any sign", {}, [s.normal(3, 4), torch.tensor(2.0)], lambda x, _: (x.pow(2), [x])
    yield "Pow", "inverse square root", {}, [s.positive(3, 4), torch.tensor(-0.5)], lambda x, _: (x.pow(-0.5), [x])
    for op, function in (("Max", torch.maximum), ("Min", torch.minimum)):
        both = s.distinct(2, 3, 4)
        yield op, "same shape", {}, [both[0], both[1]], function
        both = s.distinct(4, 4)
        yield op, "broadcast", {}, [both[:3], both[3]], function


def unary_cases(s: Source) -> Iterator[OpCase]:
    anywhere: dict[str, Callable[[Tensor], Tensor]] = {
        "Neg": torch.neg,
        "Exp": torch.exp,
        "Sigmoid": torch.sigmoid,
        "Tanh": torch.tanh,
        "Erf": torch.erf,
        "Cos": torch.cos,
        "Sin": torch.sin,
        "Identity": lambda x: x * 1,
    }
    for op, function in anywhere.items():
        yield op, "matrix", {}, [s.normal(3, 5)], function
        yield op, "wide values", {}, [s.normal(2, 3, 2, scale=4.0)], function
    for op, function in (("Log", torch.log), ("Sqrt", torch.sqrt)):
        yield op, "matrix", {}, [s.positive(3, 5)], function
        yield op, "small and large", {}, [s.positive(2, 4, low=1e-3, high=100.0)], function
    for op, function in (("Reciprocal", torch.reciprocal), ("Abs", torch.abs), ("Relu", torch.relu)):
        yield op, "matrix", {}, [s.signed(3, 5)], function
        yield op, "vector", {}, [s.signed(7)], function
    for approximate in ("none", "tanh"):
        for label, scale in (("near zero", 1.0), ("wide values", 3.0)):
            yield (
                "Gelu",
                label,
                {"approximate": approximate},
                [s.normal(4, 5, scale=scale)],
                lambda x, kind=approximate: F.gelu(x, approximate=kind),
            )
    yield "Swish", "alpha 1", {"alpha": 1.0}, [s.normal(4, 5, scale=2.0)], F.silu
    yield "Swish", "alpha 1.702", {"alpha": 1.702}, [s.normal(4, 5)], lambda x: x * torch.sigmoid(1.702 * x)


def product_cases(s: Source) -> Iterator[OpCase]:
    for label, a, b in (
        ("matrices", (3, 4), (4, 2)),
        ("batches of the same size", (2, 3, 4), (2, 4, 5)),
        ("batch against matrix", (2, 3, 4), (4, 5)),
        ("matrix against batch", (3, 4), (2, 4, 5)),
        ("broadcast batches", (2, 1, 3, 4), (3, 4, 2)),
        ("batch of one", (1, 3, 4), (2, 4, 2)),
        ("attention shape", (2, 2, 3, 4), (2, 2, 4, 3)),
        ("vector times matrix", (4,), (4, 3)),
        ("batch times vector", (2, 3, 4), (4,)),
        ("inner product", (5,), (5,)),
    ):
        yield "MatMul", label, {}, [s.normal(*a), s.normal(*b)], torch.matmul

    def gemm(a: Tensor, b: Tensor, c: Tensor | None, alpha: float, beta: float, ta: int, tb: int) -> Tensor:
        product = alpha * ((a.T if ta else a) @ (b.T if tb else b))
        return product if c is None else product + beta * c

    for label, ta, tb, alpha, beta, bias in (
        ("plain with bias", 0, 0, 1.0, 1.0, (4,)),
        ("as nn.Linear", 0, 1, 1.0, 1.0, (4,)),
        ("transposed left", 1, 0, 0.5, 1.0, (3, 4)),
        ("both transposed, scaled", 1, 1, 0.25, 0.5, (3, 1)),
        ("without bias", 0, 1, 2.0, 1.0, None),
        ("scalar bias", 0, 0, 1.0, 3.0, ()),
    ):
        inputs = [s.normal(*((5, 3) if ta else (3, 5))), s.normal(*((4, 5) if tb else (5, 4)))]
        if bias is not None:
            inputs.append(s.normal(*bias))
        attrs = {"alpha": alpha, "beta": beta, "transA": ta, "transB": tb}
        yield (
            "Gemm",
            label,
            attrs,
            inputs,
            lambda a, b, c=None, k=(alpha, beta, ta, tb): gemm(a, b, c, *k),
        )


def reduction_cases(s: Source) -> Iterator[OpCase]:
    where = [
        ("last axis, kept", (2, 3, 4), [-1], 1),
        ("first axis, dropped", (2, 3, 4), [0], 0),
        ("two axes, kept", (2, 3, 4), [0, 2], 1),
        ("two axes, dropped", (2, 3, 4), [1, -1], 0),
        ("everything", (3, 4), [0, 1], 0),
    ]
    for op, function in (("ReduceSum", torch.sum), ("ReduceMean", torch.mean), ("ReduceLogSumExp", torch.logsumexp)):
        for label, size, axes, keepdims in where:
            yield (
                op,
                label,
                {"axes": axes, "keepdims": keepdims},
                [s.normal(*size, scale=2.0)],
                lambda x, f=function, a=axes, k=keepdims: f(x, dim=a, keepdim=bool(k)),
            )
    yield (
        "ReduceLogSumExp",
        "large values",
        {"axes": [1], "keepdims": 1},
        [s.normal(2, 5, scale=80.0)],
        lambda x: torch.logsumexp(x, dim=1, keepdim=True),
    )
    for op, function in (("ReduceMax", torch.amax), ("ReduceMin", torch.amin)):
        for label, size, axes, keepdims in where:
            yield (
                op,
                label,
                {"axes": axes, "keepdims": keepdims},
                [s.distinct(*size)],
                lambda x, f=function, a=axes, k=keepdims: f(x, dim=a, keepdim=bool(k)),
            )
    for op, function in (("Softmax", torch.softmax), ("LogSoftmax", torch.log_softmax)):
        for label, size, axis in (
            ("last axis", (3, 5), -1),
            ("middle axis", (2, 4, 3), 1),
            ("attention shape", (2, 2, 3, 3), -1),
        ):
            yield op, label, {"axis": axis}, [s.normal(*size, scale=2.0)], lambda x, f=function, a=axis: f(x, dim=a)
    masked = s.normal(2, 4)
    masked[0, 2:] = -1e9
    yield "Softmax", "masked entries", {"axis": -1}, [masked], lambda x: torch.softmax(x, dim=-1)


def movement_cases(s: Source) -> Iterator[OpCase]:
    for label, size, perm in (
        ("matrix", (3, 4), [1, 0]),
        ("heads", (2, 3, 2, 4), [0, 2, 1, 3]),
        ("cycle", (2, 3, 4), [2, 0, 1]),
    ):
        yield "Transpose", label, {"perm": perm}, [s.normal(*size)], lambda x, p=perm: x.permute(p)
    for label, size, target, real in (
        ("flatten", (2, 3, 4), [-1], (24,)),
        ("split heads, batch kept by 0", (2, 3, 8), [0, 0, 2, -1], (2, 3, 2, 4)),
        ("merge heads", (2, 3, 2, 4), [2, 3, 8], (2, 3, 8)),
    ):
        yield "Reshape", label, {"shape": target}, [s.normal(*size)], lambda x, r=real: x.reshape(r)
    for label, sizes, axis in (
        ("rows", [(2, 3), (1, 3)], 0),
        ("last axis", [(2, 2), (2, 3), (2, 1)], -1),
        ("middle axis", [(2, 1, 3), (2, 2, 3)], 1),
    ):
        yield (
            "Concat",
            label,
            {"axis": axis},
            [s.normal(*size) for size in sizes],
            lambda *parts, a=axis: torch.cat(parts, dim=a),
        )
    for label, size, starts, ends, axes, steps in (
        ("front of one axis", (3, 6), [0], [3], [1], [1]),
        ("from the end", (3, 6), [-2], [2**31 - 1], [-1], [1]),
        ("two axes", (4, 5, 2), [1, 0], [3, 4], [0, 1], [1, 1]),
        ("every second", (2, 7), [1], [7], [1], [2]),
        ("backwards", (2, 5), [-1], [-(2**31)], [1], [-1]),
        ("end beyond the axis", (3, 4), [2], [100], [0], [1]),
    ):

        def cut(x: Tensor, plan: Any = (starts, ends, axes, steps)) -> Tensor:
            for start, end, axis, step in zip(*plan):
                # Python's slice has ONNX's meaning of negative and out-of-range limits.
                x = x.index_select(axis, torch.tensor(range(x.shape[axis])[slice(start, end, step)]))
            return x

        attrs = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
        yield "Slice", label, attrs, [s.normal(*size)], cut
    for label, size, target in (
        ("scalar to matrix", (), [2, 3]),
        ("inner ones", (2, 1, 3), [2, 4, 3]),
        ("new leading axes", (3, 1), [2, 3, 4]),
        ("target with ones keeps the axis", (3, 4), [2, 1, 4]),
    ):
        yield (
            "Expand",
            label,
            {"shape": target},
            [s.normal(*size)],
            lambda x, t=target: x * torch.ones(t),
        )
    for label, condition, a, b in (
        ("same shape", (2, 3), (2, 3), (2, 3)),
        ("broadcast condition", (1, 3), (2, 3), (2, 3)),
        ("scalar otherwise", (2, 3), (2, 3), ()),
        ("everything broadcast", (2, 1, 1), (3, 1), (4,)),
    ):
        yield "Where", label, {}, [s.booleans(*condition), s.normal(*a), s.normal(*b)], torch.where
    yield "Unsqueeze", "two axes", {"axes": [0, -1]}, [s.normal(2, 3)], lambda x: x[None, ..., None]
    yield "Squeeze", "two axes", {"axes": [0, 2]}, [s.normal(1, 3, 1, 2)], lambda x: x[0, :, 0]
    yield (
        "Split",
        "uneven parts",
        {"axis": -1, "split": [1, 3, 2]},
        [s.normal(2, 6)],
        lambda x: torch.split(x, [1, 3, 2], dim=-1),
    )
    yield (
        "Split",
        "halves",
        {"axis": 1, "split": [2, 2]},
        [s.normal(2, 4, 3)],
        lambda x: torch.split(x, [2, 2], dim=1),
    )


def indexing_cases(s: Source) -> Iterator[OpCase]:
    def gather(x: Tensor, index: Tensor, axis: int) -> Tensor:
        axis %= x.ndim
        flat = x.index_select(axis, (index % x.shape[axis]).reshape(-1))
        return flat.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])

    repeated = torch.tensor([[1, 4, 1], [0, 1, 4]])
    for label, size, index, axis in (
        ("embedding, repeated rows", (6, 3), repeated, 0),
        ("inner axis", (2, 5, 3), s.integers(0, 5, 4), 1),
        ("scalar index", (4, 3), torch.tensor(2), 0),
        ("negative indices", (2, 5), torch.tensor([-1, 0, -5, -1]), -1),
    ):
        yield "Gather", label, {"axis": axis}, [s.normal(*size), index], lambda x, i, a=axis: gather(x, i, a)

    for label, size, index, axis in (
        ("one per row", (4, 5), s.integers(0, 5, 4, 1), 1),
        ("repeated", (3, 4), torch.tensor([[0, 0, 2], [3, 1, 1]]), 1),
        ("first axis, negative", (3, 4), torch.tensor([[-1, 0, 1, -2], [2, 2, -3, 0]]), 0),
        ("three axes", (2, 3, 4), s.integers(0, 4, 2, 3, 2), -1),
    ):
        yield (
            "GatherElements",
            label,
            {"axis": axis},
            [s.normal(*size), index],
            lambda x, i, a=axis: torch.gather(x, a, i % x.shape[a]),
        )

    for label, size, index, axis in (
        ("repeated targets", (3, 5), torch.tensor([[0, 0, 4], [1, 2, 1]]), 1),
        ("first axis", (4, 3), torch.tensor([[0, 3, 1], [0, 3, 2]]), 0),
        ("negative indices", (2, 4), torch.tensor([[-1, 0], [-1, -1]]), -1),
    ):
        yield (
            "ScatterElements",
            label,
            {"axis": axis, "reduction": "add"},
            [s.normal(*size), index, s.normal(*index.shape)],
            lambda x, i, u, a=axis: x.scatter_add(a, i % x.shape[a], u),
        )

    def scatter_nd(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        positions = tuple(index[..., i] for i in range(index.shape[-1]))
        return x.index_put(positions, updates, accumulate=True)

    for label, size, index, updates in (
        ("rows, repeated", (5, 3), torch.tensor([[1], [4], [1]]), (3, 3)),
        ("single elements", (3, 4), torch.tensor([[0, 1], [2, 3], [0, 1]]), (3,)),
        ("batched rows", (4, 2), torch.tensor([[[0], [3]], [[3], [2]]]), (2, 2, 2)),
    ):
        yield (
            "ScatterND",
            label,
            {"reduction": "add"},
            [s.normal(*size), index, s.normal(*updates)],
            scatter_nd,
        )


def network_cases(s: Source) -> Iterator[OpCase]:
    def rms(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon) * weight

    for label, size, scale, epsilon in (
        ("hidden states", (2, 3, 8), 1.0, 1e-6),
        ("small inputs, where epsilon counts", (2, 6), 0.01, 1e-3),
        ("per head", (2, 3, 2, 4), 2.0, 1e-5),
    ):
        yield (
            "RMSNormalization",
            label,
            {"axis": -1, "epsilon": epsilon},
            [s.normal(*size, scale=scale), s.normal(size[-1])],
            lambda x, w, e=epsilon: rms(x, w, e),
        )

    def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, list[Tensor]]:
        half = x.shape[-1] // 2
        a, b = x[..., :half], x[..., half:]
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1), [x]

    for label, size, theta, factor, start in (
        ("heads by positions", (2, 2, 5, 8), 10000.0, 1.0, 0),
        ("scaled cos and sin, later positions", (1, 3, 4, 6), 100.0, 1.3, 7),
    ):
        half = size[-1] // 2
        angles = torch.arange(start, start + size[2])[:, None] * theta ** (-torch.arange(half) / half)
        cos, sin = (factor * angles.cos()).float().double(), (factor * angles.sin()).float().double()
        yield "RotaryEmbedding", label, {"interleaved": 0}, [s.normal(*size), cos, sin], rotary

    for label, size, labels, reduction in (
        ("mean over labelled rows", (5, 7), torch.tensor([3, -100, 0, 6, -100]), "mean"),
        ("sum", (4, 5), torch.tensor([1, 1, 4, -100]), "sum"),
        ("every row", (3, 6), torch.tensor([5, 0, 2]), "mean"),
        ("none", (4, 5), torch.tensor([2, -100, 0, 0]), "none"),
    ):
        yield (
            "SoftmaxCrossEntropyLoss",
            label,
            {"ignore_index": -100, "reduction": reduction},
            [s.normal(*size, scale=3.0), labels],
            lambda x, y, r=reduction: F.cross_entropy(x, y, ignore_index=-100, reduction=r),
        )

    def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, list[Tensor]]:
        groups = q.shape[1] // k.shape[1]
        keys, values = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        weights = torch.softmax(q @ keys.transpose(-1, -2) * scale + mask, dim=-1)
        return weights @ values, [q, k, v]

    def causal(rows: int, columns: int, window: int | None = None) -> Tensor:
        distance = torch.arange(columns - rows, columns)[:, None] - torch.arange(columns)[None]
        seen = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
        return torch.where(seen, 0.0, -1e9).float().double()[None, None]

    padded = causal(4, 4).expand(2, 1, 4, 4).clone()
    padded[1, :, :, 3] = -1e9
    for label, q, kv, mask in (
        ("causal", (1, 2, 4, 4), (1, 2, 4, 4), causal(4, 4)),
        ("causal with right padding", (2, 2, 4, 4), (2, 2, 4, 4), padded),
        ("grouped queries, sliding window", (1, 4, 6, 2), (1, 2, 6, 2), causal(6, 6, 3)),
        ("one query on a cache", (2, 4, 1, 4), (2, 1, 5, 4), causal(1, 5)),
    ):
        scale = q[-1] ** -0.5
        yield (
            "Attention",
            label,
            {"scale": float(scale)},
            [s.normal(*q), s.normal(*kv), s.normal(*kv), mask],
            lambda q, k, v, m, c=scale: attention(q, k, v, m, c),
        )


def image_cases(s: Source) -> Iterator[OpCase]:
    def pad(x: Tensor, pads: list[int]) -> Tensor:
        top, left, bottom, right = pads
        return F.pad(x, (left, right, top, bottom))

    for label, image, kernel, strides, pads, dilations, group, bias in (
        ("patch embedding, a rest left over", (1, 3, 9, 11), (4, 3, 7, 7), [4, 4], [3, 3, 3, 3], [1, 1], 1, True),
        ("halving", (2, 2, 5, 6), (3, 2, 3, 3), [2, 2], [1, 1, 1, 1], [1, 1], 1, True),
        ("depthwise", (2, 4, 4, 3), (4, 1, 3, 3), [1, 1], [1, 1, 1, 1], [1, 1], 4, True),
        ("depthwise, two kernels a channel", (1, 2, 4, 4), (4, 1, 2, 3), [1, 2], [0, 1, 0, 1], [1, 1], 2, False),
        ("two groups, unequal pads and strides", (1, 4, 7, 6), (2, 2, 3, 2), [3, 2], [0, 1, 2, 0], [1, 1], 2, True),
        ("dilation and stride", (1, 2, 8, 9), (2, 2, 3, 2), [2, 3], [1, 2, 1, 0], [2, 3], 1, False),
        ("1 by 1", (2, 3, 2, 3), (2, 3, 1, 1), [1, 1], [0, 0, 0, 0], [1, 1], 1, True),
    ):
        inputs = [s.normal(*image), s.normal(*kernel)] + ([s.normal(kernel[0])] if bias else [])
        yield (
            "Conv",
            label,
            {"strides": strides, "pads": pads, "dilations": dilations, "group": group},
            inputs,
            lambda x, w, b=None, p=pads, k=(strides, 0, dilations, group): F.conv2d(pad(x, p), w, b, *k),
        )
    for label, image, kernel, strides, padding, output_padding, dilations, group in (
        ("plain", (1, 2, 2, 3), (2, 3, 2, 2), [1, 1], [0, 0], [0, 0], [1, 1], 1),
        ("upsampling", (2, 2, 2, 3), (2, 2, 3, 3), [2, 3], [1, 1], [1, 2], [1, 1], 1),
        ("two groups, dilation", (1, 4, 3, 2), (4, 1, 2, 3), [2, 1], [1, 0], [0, 0], [2, 3], 2),
    ):
        yield (
            "ConvTranspose",
            label,
            {
                "strides": strides,
                "pads": padding * 2,
                "output_padding": output_padding,
                "dilations": dilations,
                "group": group,
            },
            [s.normal(*image), s.normal(*kernel)],
            lambda x, w, k=(strides, padding, output_padding, group, dilations): F.conv_transpose2d(x, w, None, *k),
        )
    for label, size, scale, epsilon, bias in (
        ("hidden states", (2, 3, 8), 1.0, 1e-5, True),
        ("small inputs, where epsilon counts", (2, 6), 0.01, 1e-3, True),
        ("without bias", (3, 4), 2.0, 1e-12, False),
    ):
        yield (
            "LayerNormalization",
            label,
            {"axis": -1, "epsilon": epsilon},
            [s.normal(*size, scale=scale), s.normal(size[-1])] + ([s.normal(size[-1])] if bias else []),
            lambda x, w, b=None, e=epsilon: F.layer_norm(x, x.shape[-1:], w, b, e),
        )
    yield "Softmax", "first axis", {"axis": 0}, [s.normal(4, 2, 3)], lambda x: torch.softmax(x, dim=0)
    yield (
        "ReduceMean",
        "spatial axes",
        {"axes": [2, 3], "keepdims": 0},
        [s.normal(2, 3, 2, 4)],
        lambda x: x.mean(dim=(2, 3)),
    )
    for label, size, before, after in (("both sides", (2, 3, 2), 2, 1), ("after", (2, 3, 2), 0, 3)):
        yield (
            "Pad",
            label,
            {"pads": [0, before, 0, 0, after, 0]},
            [s.normal(*size)],
            lambda x, b=before, a=after: F.pad(x, (0, 0, b, a)),
        )


FAMILIES = [
    binary_cases,
    unary_cases,
    product_cases,
    reduction_cases,
    movement_cases,
    indexing_cases,
    network_cases,
    image_cases,
]

DTYPES = {torch.float64: "float32", torch.int64: "int64", torch.bool: "bool"}


def shortest(value: float) -> float:
    """The shortest decimal that is this float32."""
    return float(str(np.float32(value)))


def dump(tensor: Tensor) -> dict[str, Any]:
    values = tensor.detach().reshape(-1).tolist()
    if tensor.dtype == torch.float64:
        if not all(math.isfinite(value) for value in values):
            raise ValueError("not finite")
        values = [shortest(value) for value in values]
    elif tensor.dtype == torch.bool:
        values = [int(value) for value in values]
    return {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data": values}


def record(case: OpCase, source: Source) -> dict[str, Any]:
    op, label, attrs, inputs, function = case
    inputs = [x.detach().clone().contiguous() for x in inputs]
    for x in inputs:
        if x.is_floating_point():
            x.requires_grad_(True)
    result = function(*inputs)
    # A function may name the inputs that have a gradient: (output, [inputs]).
    wanted = [x for x in inputs if x.requires_grad]
    if isinstance(result, tuple) and isinstance(result[-1], list):
        result, wanted = result
    outputs = list(result) if isinstance(result, tuple) else [result]
    upstream = [source.normal(*y.shape) for y in outputs]
    grads = dict(zip(map(id, wanted), torch.autograd.grad(outputs, wanted, upstream)))
    if not all(bool(grad.abs().max() > 0) for grad in grads.values()):
        raise ValueError(f"{op} ({label}): a gradient is zero")
    return {
        "op": op,
        "case": label,
        "attrs": attrs,
        "inputs": [dump(x) for x in inputs],
        "outputs": [dump(y) for y in outputs],
        "upstream": [dump(g) for g in upstream],
        "gradients": [dump(grads[id(x)]) if id(x) in grads else None for x in inputs],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=20)
    options = parser.parse_args()
    source = Source(options.seed)
    entries = [record(case, source) for family in FAMILIES for case in family(source)]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    payload = json.dumps(entries, separators=(",", ":")).encode()
    options.out.write_bytes(gzip.compress(payload, mtime=0))
    manifest = {
        "script": "scripts/record_ops.py",
        "seed": options.seed,
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__},
        "count": len(entries),
        "ops": sorted({entry["op"] for entry in entries}),
    }
    stem = options.out.name.removesuffix(".json.gz")
    options.out.with_name(f"{stem}.manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"{len(entries)} cases of {len(manifest['ops'])} operators, {options.out.stat().st_size} bytes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
