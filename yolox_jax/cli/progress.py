"""How much of a longer work is done, as one line."""

import sys


def print_progress(num_done: int, num_all: int | None, what: str = "evaluated", unit: str = "images") -> None:
    """Prints how many are done: one changing line on a terminal and in a notebook, elsewhere one line at the end.

    `num_all` is None if the number is not known in advance.
    """
    line = f"{what} {num_done}{'' if num_all is None else f'/{num_all}'} {unit}"
    if sys.stdout.isatty() or in_notebook():
        print(f"\r{line}", end="\n" if num_done == num_all else "", flush=True)
    elif num_done == num_all:
        print(line, flush=True)


def print_note(text: str) -> None:
    """Prints a line, over an unfinished one of `print_progress`."""
    print(f"\r{text}" if sys.stdout.isatty() or in_notebook() else text, flush=True)


def in_notebook() -> bool:
    """Returns whether this process is the kernel of a notebook, such as Jupyter's or Colab's."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None  # IPython on a terminal has none
