"""Compares the ways ONNX Runtime has to multiply with a quantised weight: time and error, forward (x W^T) and backward (dy W).

    python scripts/compare_quantized_products.py [--rows 1024] [--repeats 15] [--shapes 1536x576,...]

Prints Markdown tables. Candidates are measured in turn, on one thread, in processor time, of which the least counts; memory
patterns and prepacking are off as in Graft, except where a line says "packed". Rows of x and dy differ in size by a factor of
e in the geometric standard deviation. Needs onnx and onnxruntime.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"
Array = np.ndarray


def node(op: str, inputs: list[str], output: str, domain: str = "", **attributes: object):
    return helper.make_node(op, inputs, [output], domain=domain, **attributes)


def session(nodes: list, constants: dict[str, Array], feeds: dict[str, Array], result: tuple[int, int], packed: bool):
    """A program; what is fed is no constant, so that nothing made of it is folded."""
    used = {name for each in nodes for name in each.input}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    ]
    graph = helper.make_graph(
        nodes,
        "product",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, result)],
        initializer=[numpy_helper.from_array(v, k) for k, v in constants.items() if k in used and k not in feeds],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(MICROSOFT, 1)])
    model.ir_version = 10
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = 4
    if not packed:
        options.add_session_config_entry("session.disable_prepacking", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def quantized_rows(x: str) -> list:
    return [
        node("Abs", [x], "size"),
        node("ReduceMax", ["size", "last"], "largest", keepdims=1),
        node("Mul", ["largest", "step"], "row_scale"),
        node("Div", [x, "row_scale"], "unit_rows"),
        node("QuantizeLinear", ["unit_rows", "one", "middle"], "q"),
    ]


def blocks(weight: Array, bits: int, size: int) -> tuple[Array, Array]:
    parts = weight.reshape(len(weight), -1, size)
    top, zero = (127, 128) if bits == 8 else (7, 8)
    scales = (np.abs(parts).max(-1) / top).astype(np.float32)
    codes = np.clip(np.rint(parts / scales[..., None]) + zero, 0, 2 * zero - 1).astype(np.uint8)
    return (codes if bits == 8 else codes[..., 0::2] | (codes[..., 1::2] << 4)), scales


def candidates(weight: Array, forward: bool):
    """Name -> nodes, constants, whether weights are packed, and what is fed besides x."""
    out, inner = weight.shape
    scales = (np.abs(weight).max(1) / 127).astype(np.float32)
    codes = np.rint(weight / scales[:, None]).astype(np.int8)
    constants = {
        "W": weight, "codes": codes, "codes_t": codes.T.copy(), "scales": scales, "scales_row": scales[None],
        "one": np.float32(1).reshape(()), "middle": np.array(128, np.uint8), "last": np.array([1], np.int64),
        "step": np.array(1 / 127, np.float32), "zero": np.array(0, np.int8), "zeros": np.zeros(out, np.int8),
    }  # fmt: skip
    fold = [] if forward else [node("Mul", ["x", "scales_row"], "xs")]
    x, column, zero = ("x", "scales", "zeros") if forward else ("xs", "one", "zero")
    direct = "codes_t" if forward else "codes"
    after = [node("Mul", ["y0", "row_scale"], "y")]
    qgemm = node(
        "QGemm", ["q", "one", "middle", "codes", column, zero], "y0", MICROSOFT, transB=int(forward)
    )
    integer = node("MatMulIntegerToFloat", ["q", direct, "one", column, "middle"], "y0", MICROSOFT)
    found = {
        "Gemm, float32": ([node("Gemm", ["x", "W"], "y", transB=int(forward))], False, []),
        "DynamicQuantizeMatMul, one scale for x": (
            [*fold, node("DynamicQuantizeMatMul", [x, direct, column], "y", MICROSOFT)], False, [],
        ),
        "rows + MatMulIntegerToFloat, a copy for each direction": (
            [*fold, *quantized_rows(x), integer, *after], False, [],
        ),
        "the same, packed": ([*fold, *quantized_rows(x), integer, *after], True, []),
        "rows + QGemm, one copy (used for int8)": ([*fold, *quantized_rows(x), qgemm, *after], False, []),
        "DequantizeLinear + Gemm, int8": (
            [
                node("DequantizeLinear", ["codes", "scales"], "w", axis=0),
                node("Gemm", ["x", "w"], "y", transB=int(forward)),
            ], False, ["codes"],
        ),
    }  # fmt: skip
    right = weight if forward else weight.T.copy()
    for bits, size in ((8, 32), (8, 64), (8, 128), (4, 32), (4, 64)):
        if right.shape[1] % size:
            continue
        key = f"{bits}_{size}"
        constants[f"B{key}"], constants[f"S{key}"] = blocks(right, bits, size)
        matmul = node(
            "MatMulNBits", ["x", f"B{key}", f"S{key}"], "y", MICROSOFT,
            K=right.shape[1], N=right.shape[0], bits=bits, block_size=size, accuracy_level=4,
        )  # fmt: skip
        found[f"MatMulNBits {bits} bits, block {size}, packed"] = ([matmul], True, [])
    return found, constants


def compare(out: int, inner: int, rows: int, repeats: int, source: np.random.Generator) -> None:
    weight = source.standard_normal((out, inner)) * 0.03 * np.exp(0.3 * source.standard_normal((out, 1)))
    weight = weight.astype(np.float32)
    table: dict[str, list[str]] = {}
    for forward in (True, False):
        width = inner if forward else out
        x = source.standard_normal((rows, width)) * np.exp(source.standard_normal((rows, 1)))
        x = x.astype(np.float32)
        expected = x.astype(np.float64) @ (weight.T if forward else weight)
        found, constants = candidates(weight, forward)
        programs = {}
        for name, (nodes, packed, fed) in found.items():
            feeds = {"x": x, **{key: constants[key] for key in fed}}
            programs[name] = (session(nodes, constants, feeds, expected.shape, packed), feeds)
        times: dict[str, list[float]] = {name: [] for name in programs}
        errors = {}
        for repeat in range(repeats):
            for name, (program, feeds) in programs.items():
                begin = time.process_time()
                (y,) = program.run(None, feeds)
                times[name].append(time.process_time() - begin)
                if repeat == 0:
                    errors[name] = np.linalg.norm(y - expected, axis=1) / np.linalg.norm(expected, axis=1)
        base = min(times["Gemm, float32"])
        for name in programs:
            least = min(times[name])
            cells = [f"{least * 1e3:.2f} ms", f"{base / least:.2f}×", f"{errors[name].mean() * 100:.2f} %"]
            table.setdefault(name, []).extend(cells)
    print(f"\n### [{out}, {inner}], {rows} rows\n")
    print("| product | forward | | error of a row | backward | | error of a row |\n|---|--:|--:|--:|--:|--:|--:|")
    for name, cells in table.items():
        print(f"| {name} | {' | '.join(cells if len(cells) == 6 else [*cells, '', '', ''])} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--shapes", default="1536x576,576x1536,576x576,192x576,4864x896,49152x576")
    options = parser.parse_args()
    source = np.random.default_rng(0)
    for shape in options.shapes.split(","):
        out, inner = map(int, shape.split("x"))
        repeats = options.repeats if out < 10_000 else max(3, options.repeats // 5)
        compare(out, inner, options.rows, repeats, source)


if __name__ == "__main__":
    main()
