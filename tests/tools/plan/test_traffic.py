"""HBM traffic, counted in hand-written HLO of the form that libtpu prints."""

import jax
import jax.numpy as jnp
import pytest

from yolox_jax.tools.plan.hlo import parse
from yolox_jax.tools.plan.traffic import hbm_bytes


def _entry(*lines: str, others: str = "") -> int:
    body = "\n".join(f"  {line}" for line in lines)
    return hbm_bytes(parse(f"{others}\nENTRY %main.1 (x: f32[8,128]) -> f32[8,128] {{\n{body}\n}}\n"))


_X = "%x = f32[8,128]{1,0:T(8,128)} parameter(0)"  # 4096 bytes


def test_an_instruction_reads_its_operands_and_writes_its_result():
    fusion = "%y = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(%x, %x), kind=kLoop, calls=%body"
    assert _entry(_X, fusion) == 4096 + 4096 + 2048


def test_arrays_in_on_chip_memory_do_not_count():
    fusion = "%y = f32[8,128]{1,0:T(8,128)S(1)} fusion(%x), kind=kLoop, calls=%body"
    assert _entry(_X, fusion, "%z = f32[8,128]{1,0:T(8,128)S(1)} negate(%y)") == 4096


@pytest.mark.parametrize(
    ("array", "num_bytes"),
    [
        ("f32[3,5]{1,0:T(8,128)}", 8 * 128 * 4),
        ("bf16[16,10,10,32]{3,0,2,1:T(8,128)(2,1)}", 16 * 10 * 10 * 128 * 2),
        ("bf16[16,10,10,32]{2,3,1,0:T(8,128)(2,1)}", 16 * 10 * 32 * 128 * 2),
        ("f32[3]{0:T(128)}", 128 * 4),
        ("f32[]{:T(128)}", 4),
        ("pred[7]{0}", 7),
        ("f8e4m3fn[6]{0}", 6),
        ("s4[6]{0}", 3),
    ],
)
def test_the_padding_of_tiles_counts(array, num_bytes):
    assert _entry(_X, f"%y = {array} iota(), iota_dimension=0", "%z = s8[] custom-call(%y)") == num_bytes + 1


def test_instructions_that_only_name_arrays_move_nothing():
    assert (
        _entry(
            _X,
            "%t = (f32[8,128]{1,0:T(8,128)}, /*index=1*/f32[8,128]{1,0:T(8,128)}) tuple(%x, %x)",
            "%y = f32[8,128]{1,0:T(8,128)} get-tuple-element(%t), index=1",
            "%b = f32[1024]{0:T(1024)} bitcast(%y)",
            '%c = f32[1024]{0:T(1024)} custom-call(%b, %b), custom_call_target="ConcatBitcast"',
        )
        == 0
    )


def test_an_asynchronous_copy_into_on_chip_memory_is_read_once():
    copy = "%c = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x)"
    done = "%d = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%c)"
    assert _entry(_X, copy, done) == 4096
    part = "%s = ((f32[8,128]{1,0:T(8,128)}), f32[8,128]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%big)"
    big = "%big = f32[80,128]{1,0:T(8,128)} parameter(1)"
    assert _entry(big, part, "%e = f32[8,128]{1,0:T(8,128)S(1)} slice-done(%s)") == 4096


def test_a_slice_in_hbm_is_read_and_written():
    assert _entry("%big = f32[80,128]{1,0} parameter(0)", "%s = f32[8,128]{1,0} dynamic-slice(%big)") == 2 * 4096


def test_a_loop_counts_one_iteration_and_a_conditional_all_its_branches():
    others = """
%iteration (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %n = f32[8,128]{1,0:T(8,128)} negate(%p)
}
"""
    loop = "%w = f32[8,128]{1,0:T(8,128)} while(%x), condition=%again, body=%iteration"
    branches = "%k = f32[8,128]{1,0:T(8,128)} conditional(%w, %x, %x), branch_computations={%iteration, %iteration}"
    assert _entry(_X, loop, others=others) == 2 * 4096
    assert _entry(_X, loop, branches, others=others) == 6 * 4096


def test_a_compiled_elementwise_program_reads_its_operands_and_writes_its_result():
    x = jax.ShapeDtypeStruct((100, 50), jnp.float32)
    program = jax.jit(lambda x, y: jnp.sin(x) + y).lower(x, x).compile().as_text()
    assert hbm_bytes(parse(program)) == 3 * 100 * 50 * 4


def test_a_text_without_a_program_is_an_error():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        parse("HloModule empty")
