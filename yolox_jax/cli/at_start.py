"""Imported by train.py and eval.py before all else: their libraries take seconds to import, and signals are heard then.

In other modules that import those two, such as tests, nothing changes, nor in worker processes.
"""

import sys
from pathlib import Path

from yolox_jax import interrupts

_program = Path(getattr(sys.modules["__main__"], "__file__", None) or "").name
if _program in ("train.py", "eval.py"):
    interrupts.end_at_ctrl_c()
if _program == "train.py":
    interrupts.end_at_sigterm()
