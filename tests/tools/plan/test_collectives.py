"""Collectives of hand-written HLO, and of a compiled program of eight simulated devices."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from yolox_jax.mesh import make_mesh
from yolox_jax.tools.plan.collectives import Collective, describe, find_collectives
from yolox_jax.tools.plan.hlo import parse

# The forms that libtpu and XLA:CPU print: layouts with parentheses, tuples with comments, asynchronous pairs.
_PROGRAM = """
%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y), metadata={op_name="not an instruction: = f32[9] all-reduce(%x)"}
}
ENTRY %main (a: f32[4,8]) -> f32[4,8] {
  %grads = (f32[4,8]{1,0:T(8,128)}, /*index=1*/bf16[16]{0:T(256)(128)(2,1)S(1)}) all-reduce(%a, %b), \
channel_id=1, replica_groups=[2,4]<=[8], to_apply=%add
  %start = f32[100]{0} all-reduce-start(%c), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  %done = f32[100]{0} all-reduce-done(%start)
  %part = f32[4,8]{1,0} get-tuple-element(%grads), index=0
  %gather = (f32[2]{0}, f32[16]{0}) all-gather-start(%d), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  %ring = (f32[6]{0}, f32[6]{0}, u32[], u32[]) collective-permute-start(%e), source_target_pairs={{0,1},{1,0}}
  %scatter = pred[3]{0} reduce-scatter(%f), replica_groups={}, to_apply=%add
  ROOT %swap = s8[8]{0} all-to-all(%g), replica_groups={{0,1},{2,3}}
}
"""


def test_every_collective_of_a_program_is_found_once_with_its_bytes_and_group():
    assert find_collectives(parse(_PROGRAM), num_chips=8) == [
        Collective("all-reduce", 4 * 8 * 4 + 16 * 2, 4),
        Collective("all-reduce", 400, 8),
        Collective("all-gather", 64, 8),
        Collective("collective-permute", 24, 8),
        Collective("reduce-scatter", 3, 8),
        Collective("all-to-all", 8, 2),
    ]


def _sent_by_a_ring(kind: str, num_chips: int) -> int:
    """Bytes that one chip sends in a ring, if each chip's array has one byte for every chip."""
    sent = 0
    if kind in ("reduce-scatter", "all-reduce"):
        for _ in range(num_chips - 1):
            sent += 1  # a partial sum, to the next chip
    if kind in ("all-gather", "all-reduce"):
        for _ in range(num_chips - 1):
            sent += 1  # a complete sum, to the next chip
    return sent


@pytest.mark.parametrize("num_chips", [1, 2, 8, 256])
@pytest.mark.parametrize("kind", ["all-reduce", "all-gather", "reduce-scatter"])
def test_a_chip_sends_as_many_bytes_as_in_a_ring(kind, num_chips):
    result_bytes = 1 if kind == "reduce-scatter" else num_chips
    assert Collective(kind, result_bytes, num_chips).sent_bytes == pytest.approx(_sent_by_a_ring(kind, num_chips))


def test_the_collectives_of_a_compiled_program_are_found():
    def exchange(x):
        return (
            lax.psum(x, "data"),
            lax.all_gather(x[0], "data"),
            lax.ppermute(x, "data", [(i, i ^ 1) for i in range(8)]),
        )

    mapped = jax.shard_map(
        exchange, mesh=make_mesh(8), in_specs=P("data"), out_specs=(P(), P(), P("data")), check_vma=False
    )
    program = jax.jit(mapped).lower(jax.ShapeDtypeStruct((8, 50), jnp.float32)).compile().as_text()
    found = find_collectives(parse(program), 8)
    assert sorted((each.kind, each.num_bytes) for each in found) == [
        ("all-gather", 8 * 50 * 4),
        ("all-reduce", 50 * 4),
        ("collective-permute", 50 * 4),
    ]
    assert describe(found) == "1 all-reduce, 1 all-gather, 1 collective-permute"


def test_a_program_without_collectives_has_none():
    program = jax.jit(lambda x: x @ x).lower(jnp.ones((4, 4))).compile().as_text()
    assert describe(find_collectives(parse(program), 8)) == "none"
