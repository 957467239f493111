"""Imported by train.py and eval.py before all else: their libraries take seconds to import, and Ctrl-C is heard then.

In other modules that import those two, such as tests, nothing changes.
"""

import sys
from pathlib import Path

from yolox_jax import interrupts

if Path(getattr(sys.modules["__main__"], "__file__", None) or "").name in ("train.py", "eval.py"):
    interrupts.end_at_ctrl_c()
