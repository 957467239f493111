"""Names the versions and the device."""

import glob
import importlib.metadata
import os
import platform

import jax

from yolox_jax.models import yolox
from yolox_jax.tools.selfcheck import memory
from yolox_jax.tools.selfcheck.report import Line
from yolox_jax.tools.selfcheck.setting import Record, Setting
from yolox_jax.training import hosts

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "opencv-python-headless")
# Of these, those that are installed.
_PLUGINS = ("libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
_DEVICE_FILES = ("/dev/nvidia[0-9]*", *hosts.TPU_FILES)


def versions(setting: Setting, record: Record) -> None:
    """Lists the packages that results depend on; touches no device."""
    found = {"python": platform.python_version()}
    for package in (*_PACKAGES, *_PLUGINS):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            if package in _PACKAGES:
                found[package] = "not installed"
    found["system"] = platform.platform()
    record(Line("versions", "measured", ", ".join(f"{name} {version}" for name, version in found.items()), found))


def device(setting: Setting, record: Record) -> None:
    """Describes the first device, which everything else runs on, and the processor beside it.

    Fails if the machine has an accelerator and JAX took the CPU: if a plugin does not start, JAX only warns.
    """
    first, num_cores, limit = jax.devices()[0], os.cpu_count(), memory.limit_bytes(jax.devices()[0])
    figures = {
        "kind": first.device_kind,
        "platform": first.platform,
        "platform_version": first.client.platform_version,
        "compute_capability": str(getattr(first, "compute_capability", "")),
        "num_devices": jax.device_count(),
        "limit_bytes": limit,
        "dtype": str(yolox.compute_dtype("auto")),
        "num_cores": num_cores,
    }
    capability = f", compute capability {figures['compute_capability']}" if figures["compute_capability"] else ""
    room = "memory not reported" if limit is None else f"{limit / 1e9:.2f} GB for JAX"
    text = (
        f"{first.device_kind} ({first.platform}{capability}), the first of {jax.device_count()}; {room}; "
        f"dtype=auto is {figures['dtype']}; {num_cores} cores"
    )
    unused = _accelerators() if first.platform == "cpu" else []
    if unused:
        text += f"; but the machine has {', '.join(unused)}, which JAX does not use: see docs/installation.md"
    record(Line("device", "FAIL" if unused else "measured", text, figures))


def _accelerators() -> list[str]:
    """The device files of GPUs and TPUs; none if JAX_PLATFORMS asks for the CPU."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return []
    return sorted(path for pattern in _DEVICE_FILES for path in glob.glob(pattern))
