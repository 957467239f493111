"""Counts the FLOPs of convolutions and matrix products in the text of a lowered program (StableHLO).

Elementwise work is not counted, so neither are depthwise convolutions where they are written as shifted products.
A compiler may choose other convolutions to the same end, and do more.
"""

import collections
import math
import re

import numpy as np

_FUNCTION = re.compile(r'^\s*func\.func \w+ @("[^"]+"|[\w.$-]+)\(')
_CALL = re.compile(r'\bcall @("[^"]+"|[\w.$-]+)\(')
_CONVOLUTION = re.compile(
    r"stablehlo\.convolution\(.*?\) dim_numbers = \[(?P<lhs>[^\]]*)\]x\[(?P<kernel>[^\]]*)\]->\[(?P<out>[^\]]*)\], "
    r"window = \{(?P<window>.*?)\} \{.*: \(tensor<(?P<lhs_type>[^>]*)>, tensor<(?P<kernel_type>[^>]*)>\)"
    r" -> tensor<(?P<out_type>[^>]*)>"
)
_DOT = re.compile(
    r"stablehlo\.dot_general .*contracting_dims = \[(?P<axes>[\d, ]*)\] x .*: \(tensor<(?P<lhs_type>[^>]*)>, .*\)"
    r" -> tensor<(?P<out_type>[^>]*)>"
)


def count_flops(text: str) -> float:
    """Counts `lowered.as_text()`: two for each product of numbers that are no padding. A loop counts one iteration.

    Of a program for several devices, counts one device's part, if it is mapped by shard_map.
    """
    own: dict[str, float] = collections.defaultdict(float)  # FLOPs of each function, without those it calls
    calls: dict[str, list[str]] = collections.defaultdict(list)
    function = ""
    for line in text.splitlines():
        if start := _FUNCTION.match(line):
            function = start[1]
        elif "stablehlo.convolution" in line:
            own[function] += _convolution_flops(line)
        elif "stablehlo.dot_general" in line:
            own[function] += _dot_flops(line)
        elif call := _CALL.search(line):
            calls[function].append(call[1])

    def total(name: str) -> float:
        return own[name] + sum(total(called) for called in calls[name])

    return total("main")


def _dot_flops(line: str) -> float:
    match = _matched(_DOT, line)
    lhs = _sides(match["lhs_type"])
    return 2 * math.prod(_sides(match["out_type"])) * math.prod(lhs[axis] for axis in _numbers(match["axes"]))


def _convolution_flops(line: str) -> float:
    match = _matched(_CONVOLUTION, line)
    lhs, kernel, out = (
        dict(zip(match[name].split(", "), _sides(match[f"{name}_type"]), strict=True))
        for name in ("lhs", "kernel", "out")
    )
    spatial = sorted(name for name in kernel if name.isdecimal())
    window = {
        key: np.reshape(_numbers(value.replace("true", "1").replace("false", "0")), (len(spatial), -1))
        for key, value in re.findall(r"(\w+) = (\[.*?\])(?=, \w+ = |$)", match["window"])
    }
    ones = np.ones((len(spatial), 1), int)
    stride, lhs_dilate, rhs_dilate = (window.get(key, ones)[:, 0] for key in ("stride", "lhs_dilate", "rhs_dilate"))
    before = window.get("pad", 0 * ones)[:, 0]
    products = [
        _num_products(lhs[name], kernel[name], out[name], stride[i], before[i], lhs_dilate[i], rhs_dilate[i])
        for i, name in enumerate(spatial)
    ]
    return 2 * math.prod(products) * out["b"] * out["f"] * kernel["i"]


def _num_products(size: int, taps: int, out: int, stride: int, before: int, lhs_dilate: int, rhs_dilate: int) -> int:
    """Counts along one axis the pairs of an output and a tap that meets a number of the input, not padding or a gap."""
    position = np.arange(out)[:, None] * stride + np.arange(taps) * rhs_dilate - before
    inside = (position >= 0) & (position <= (size - 1) * lhs_dilate)
    return int((inside & (position % lhs_dilate == 0)).sum())


def _matched(pattern: re.Pattern[str], line: str) -> re.Match[str]:
    match = pattern.search(line)
    if match is None:
        raise ValueError(f"this version of jax prints StableHLO in another form: {line.strip()[:300]}")
    return match


def _sides(tensor_type: str) -> list[int]:
    return [int(side) for side in tensor_type.split("x")[:-1]]


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"-?\d+", text)]
