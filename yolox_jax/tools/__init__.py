"""Programs: python -m yolox_jax.tools.NAME."""

import sys

from yolox_jax import interrupts

if sys.argv[0] == "-m":  # while Python looks for the program, before it imports a library
    interrupts.end_at_ctrl_c()
