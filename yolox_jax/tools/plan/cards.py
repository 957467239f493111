"""NVIDIA cards by their data sheets, as the roofline counts with them and as XLA wants them described."""

import dataclasses
from collections.abc import Mapping

from yolox_jax.errors import UserError

MAX_CARDS = 256
SHARE_FOR_JAX = 0.75  # of a card's memory, which JAX takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise


@dataclasses.dataclass(frozen=True)
class Multiprocessor:
    """The unit that a card has many of (SM), as the CUDA C++ programming guide lists it by compute capability."""

    compute_capability: tuple[int, int]
    fp32_units: int
    shared_kb: int
    threads: int


_TURING = Multiprocessor((7, 5), 64, 64, 1024)
_AMPERE_100 = Multiprocessor((8, 0), 64, 164, 2048)
_AMPERE = Multiprocessor((8, 6), 128, 100, 1536)
_ADA = Multiprocessor((8, 9), 128, 100, 1536)
_HOPPER = Multiprocessor((9, 0), 128, 228, 2048)


@dataclasses.dataclass(frozen=True)
class Card:
    """Peak figures of one card, and what XLA asks of its units."""

    device_kind: str  # the name that its driver reports
    flops_per_s: Mapping[str, float]  # by the type that is multiplied; dense, with sums in float32
    hbm_bytes: float
    hbm_bytes_per_s: float
    link_bytes_per_s: float  # sent to other cards: NVLink, or PCIe. The data sheets add both directions: twice this.
    num_sm: int
    clock_ghz: float
    l2_mb: int
    sm: Multiprocessor


def _tflops(half: float, float32: float, bfloat16: float | None = None) -> dict[str, float]:
    return {"float16": half * 1e12, "bfloat16": (bfloat16 or half) * 1e12, "float32": float32 * 1e12}


_A100, _HOPPER_PEAKS = _tflops(312, 156), _tflops(989, 494)
# Sources, read in November 2026: NVIDIA's data sheets of T4, L4, A10, A100, H100 and H200 (SXM for the last three) and
# its white paper on Ada (RTX 4090); where a figure is "with sparsity", half of it. From Ampere on, float32 is TF32, in
# which XLA multiplies it unless asked for more. The T4 has no bfloat16, so that is computed in float32.
CARDS = {
    "T4": Card("Tesla T4", _tflops(65, 8.1, 8.1), 16e9, 320e9, 16e9, 40, 1.59, 4, _TURING),
    "L4": Card("NVIDIA L4", _tflops(121, 60), 24e9, 300e9, 32e9, 58, 2.04, 48, _ADA),
    "A10": Card("NVIDIA A10", _tflops(125, 62.5), 24e9, 600e9, 32e9, 72, 1.695, 6, _AMPERE),
    "A100": Card("NVIDIA A100-SXM4-40GB", _A100, 40e9, 1555e9, 300e9, 108, 1.41, 40, _AMPERE_100),
    "A100-80GB": Card("NVIDIA A100-SXM4-80GB", _A100, 80e9, 2039e9, 300e9, 108, 1.41, 40, _AMPERE_100),
    "H100": Card("NVIDIA H100 80GB HBM3", _HOPPER_PEAKS, 80e9, 3350e9, 450e9, 132, 1.98, 50, _HOPPER),
    "H200": Card("NVIDIA H200", _HOPPER_PEAKS, 141e9, 4800e9, 450e9, 132, 1.98, 50, _HOPPER),
    "RTX4090": Card("NVIDIA GeForce RTX 4090", _tflops(165, 82.6), 24e9, 1008e9, 32e9, 128, 2.52, 72, _ADA),
}


@dataclasses.dataclass(frozen=True)
class Cards:
    """A number of cards of one kind in one machine."""

    kind: str  # a key of CARDS
    num_devices: int
    unit = "card"

    @property
    def chip(self) -> Card:
        return CARDS[self.kind]

    @property
    def num_chips(self) -> int:
        return self.num_devices

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.num_devices}"


def parse_count(name: str, count: str) -> int:
    """Parses what follows the colon of a device; without any, 1."""
    if not count.isdecimal() or not 1 <= int(count) <= MAX_CARDS:
        raise UserError(f"--device={name} is not a number of devices", f"give one from 1 to {MAX_CARDS}, as in T4:2")
    return int(count)


def target_config(card: Card) -> str:
    """Describes a card to XLA, as a GpuTargetConfigProto in text. One version of CUDA and cuDNN for all."""
    major, minor = card.sm.compute_capability
    shared_bytes = card.sm.shared_kb * 1024
    # A block of threads can have all of it but 1 KB, which the system takes from 8.0 on.
    block_bytes = shared_bytes - (1024 if major >= 8 else 0)
    extension = "ACCELERATED_FEATURES" if major >= 9 else "NONE"
    return f"""
gpu_device_info {{
  name: "{card.device_kind}"
  device_vendor: "NVIDIA Corporation"
  platform_version: "Compute Capability {major}.{minor}"
  cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: {extension} }}
  core_count: {card.num_sm}
  clock_rate_ghz: {card.clock_ghz}
  fpus_per_core: {card.sm.fp32_units}
  device_memory_size: {card.hbm_bytes:.0f}
  memory_bandwidth: {card.hbm_bytes_per_s:.0f}
  pcie_bandwidth: 32000000000
  l2_cache_size: {card.l2_mb * 2**20}
  shared_memory_per_core: {shared_bytes}
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {block_bytes}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  threads_per_core_limit: {card.sm.threads}
  threads_per_block_limit: 1024
  threads_per_warp: 32
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  device_address_bits: 64
  ecc_enabled: true
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.12.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 patch: 0 }}
device_description_str: "{card.device_kind}"
"""
