"""Imports grain without what it logs then: that jaxlib before 0.11 cannot profile its workers, which nothing here does.

A program silences the libraries later, when it has parsed its flags.
"""

from absl import logging

_logger = logging.get_absl_logger()
_logger.disabled = True
try:
    import grain
finally:
    _logger.disabled = False

__all__ = ["grain"]
