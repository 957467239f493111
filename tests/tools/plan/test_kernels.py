"""Kernels of GPU programs, in hand-written HLO of the form that XLA prints, and the minimum time that they take."""

import pytest

from yolox_jax.tools.plan.cards import CARDS
from yolox_jax.tools.plan.hlo import parse
from yolox_jax.tools.plan.kernels import Kernel, find_kernels
from yolox_jax.tools.plan.roofline import KERNEL_S, kernel_times


def _kernels(*lines, others=""):
    body = "\n".join(f"  {line}" for line in lines)
    return find_kernels(parse(f"{others}\nENTRY %main.1 (x: f32[8]) -> f32[8] {{\n{body}\n}}\n"))


_IMAGE = "%x = bf16[8,80,80,64]{3,2,1,0} parameter(0)"
_KERNEL = "%k = bf16[128,3,3,64]{3,2,1,0} parameter(1)"
_GRAD = "%g = bf16[8,80,80,128]{3,2,1,0} parameter(2)"
_FLOPS = 2 * 8 * 80 * 80 * 64 * 128 * 9
_BYTES = 2 * (8 * 80 * 80 * 64 + 9 * 64 * 128 + 8 * 80 * 80 * 128)


@pytest.mark.parametrize(
    "line",
    [
        (
            "%c = (bf16[8,80,80,128]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k), window={size=3x3 pad=1_1x1_1}, "
            'dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward", backend_config={"algo_id":"-1"}'
        ),
        (
            "%c = (bf16[8,80,80,64]{3,2,1,0}, u8[0]{0}) custom-call(%g, %k), window={size=3x3 pad=1_1x1_1}, "
            'dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardInput"'
        ),
        (
            "%c = (bf16[128,3,3,64]{3,2,1,0}, u8[0]{0}) custom-call(%x, %g), window={size=3x3 pad=1_1x1_1}, "
            'dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter"'
        ),
    ],
    ids=["forward", "backward input", "backward filter"],
)
def test_a_convolution_of_cudnn_has_the_same_flops_in_each_direction(line):
    assert _kernels(_IMAGE, _KERNEL, _GRAD, line) == [Kernel("convolution", _BYTES, _FLOPS, "bfloat16")]


def test_a_convolution_with_channels_outside_is_nchw():
    (kernel,) = _kernels(
        "%x = f32[8,64,80,80]{3,2,1,0} parameter(0)",
        "%k = f32[128,64,3,3]{3,2,1,0} parameter(1)",
        "%c = (f32[8,128,80,80]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k), window={size=3x3 pad=1_1x1_1}, "
        'dim_labels=bf01_oi01->bf01, custom_call_target="__cudnn$convForward"',
    )
    assert kernel == Kernel("convolution", 2 * _BYTES, _FLOPS, "float32", is_nchw=True)


def test_a_grouped_convolution_multiplies_within_groups():
    (kernel,) = _kernels(
        "%x = f32[1,8,8,16]{3,2,1,0} parameter(0)",
        "%k = f32[16,3,3,1]{3,2,1,0} parameter(1)",
        "%c = (f32[1,8,8,16]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k), window={size=3x3 pad=1_1x1_1}, "
        'dim_labels=b01f_o01i->b01f, feature_group_count=16, custom_call_target="__cudnn$convForward"',
    )
    assert kernel.flops == 2 * 8 * 8 * 16 * 9


def test_matrix_products_of_cublas_and_of_triton_are_found():
    lines = (
        "%x = f16[100,64]{1,0} parameter(0)",
        "%y = f16[64,32]{1,0} parameter(1)",
        '%a = (f32[100,32]{1,0}, s8[33554432]{0}) custom-call(%x, %y), custom_call_target="__cublas$lt$matmul", '
        + 'backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}',
        '%b = f16[100,32]{1,0} fusion(%x, %y), kind=kCustom, calls=%gemm, backend_config={"kind":"__triton_gemm"}',
    )
    triton = """
%gemm (p.1: f16[100,64], p.2: f16[64,32]) -> f16[100,32] {
  %p.1 = f16[100,64]{1,0} parameter(0)
  %p.2 = f16[64,32]{1,0} parameter(1)
  ROOT %dot = f16[100,32]{1,0} dot(%p.1, %p.2), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""
    cublas, fusion = _kernels(*lines, others=triton)
    flops, operands = 2 * 100 * 64 * 32, 2 * (100 * 64 + 64 * 32)
    assert cublas == Kernel("matrix product", operands + 4 * 100 * 32 + 33554432, flops, "float16")
    assert fusion == Kernel("matrix product", operands + 2 * 100 * 32, flops, "float16")


def test_a_fusion_reads_the_slices_that_it_uses_and_writes_what_it_updates():
    others = """
%sliced (p.1: f32[100,8], p.2: f32[8]) -> f32[8] {
  %p.1 = f32[100,8]{1,0} parameter(0)
  %p.2 = f32[8]{0} parameter(1)
  %s = f32[1,8]{1,0} slice(%p.1), slice={[3:4], [0:8]}
  %r = f32[8]{0} bitcast(%s)
  ROOT %t = f32[8]{0} add(%r, %p.2)
}

%updated (q.1: f32[8], q.2: f32[100,8], q.3: s32[]) -> f32[100,8] {
  %q.2 = f32[100,8]{1,0} parameter(1)
  %q.1 = f32[8]{0} parameter(0)
  %q.3 = s32[] parameter(2)
  %b = f32[1,8]{1,0} bitcast(%q.1)
  ROOT %u = f32[100,8]{1,0} dynamic-update-slice(%q.2, %b, %q.3, %q.3)
}
"""
    sliced, updated = _kernels(
        "%x = f32[100,8]{1,0} parameter(0)",
        "%y = f32[8]{0} parameter(1)",
        "%i = s32[] constant(3)",
        "%z = f32[8]{0} fusion(%x, %y), kind=kLoop, calls=%sliced",
        "%w = f32[100,8]{1,0} fusion(%z, %x, %i), kind=kLoop, calls=%updated",
        others=others,
    )
    assert sliced == Kernel("fusion", 3 * 32)
    assert updated == Kernel("fusion", 2 * 32 + 4)


def test_a_loop_counts_one_iteration_and_names_of_arrays_nothing():
    body = """
%iteration (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %n = f32[8]{0} copy(%p)
}
"""
    kernels = _kernels(
        "%x = f32[8]{0} parameter(0)",
        "%b = f32[2,4]{1,0} bitcast(%x)",
        "%w = f32[8]{0} while(%x), condition=%again, body=%iteration",
        '%c = f32[8]{0} call(%w), to_apply=%iteration, backend_config={"command_buffer":"1"}',
        others=body,
    )
    assert kernels == [Kernel("copy", 64)] * 2


def test_each_kernel_is_bound_by_its_flops_its_bytes_or_the_time_of_a_kernel():
    card = CARDS["A100"]  # 312 TFLOP/s, 1555 GB/s
    times = kernel_times(
        [
            Kernel("convolution", 1_555_000, 312e9, "bfloat16"),
            Kernel("convolution", 1_555_000, 156e9, "float32"),
            Kernel("fusion", 15_550_000),
            Kernel("fusion", 1),
            Kernel("fusion", 2),
        ],
        card,
    )
    assert times.compute_s == pytest.approx(2e-3)
    assert times.memory_s == pytest.approx(1e-5)
    assert times.floor_s == pytest.approx(2 * KERNEL_S)
    assert times.seconds == pytest.approx(2.01e-3 + 2 * KERNEL_S)
