"""Changes of files, whatever their format: bytes, encodings, and what stands at the path instead of a file."""

import os
import random
import shutil
from pathlib import Path

from benchmarks.fuzz.change import Change

_HUGE = 3 << 30  # bytes of a sparse file: more than config.data.max_file_mb allows


def choose_file(folder: Path, rng: random.Random, pattern: str = "*") -> Path:
    """Chooses one of the files below a folder."""
    return rng.choice(sorted(path for path in folder.rglob(pattern) if path.is_file()))


def change_bytes(path: Path, rng: random.Random) -> Change:
    """Flips, replaces, removes, repeats or adds bytes of a file."""
    data = bytearray(path.read_bytes())
    kind = rng.choice(("flip", "flip", "flips", "set", "cut", "remove", "repeat", "insert", "zeros"))
    start = rng.randrange(len(data)) if data else 0
    stop = min(len(data), start + rng.choice((1, 4, 64, 1024)))
    if kind in ("flip", "flips"):
        for _ in range(1 if kind == "flip" else 16):
            if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "set":
        data[start:stop] = rng.randbytes(stop - start)
    elif kind == "cut":
        del data[start:]
    elif kind == "remove":
        del data[start:stop]
    elif kind == "repeat":
        data[start:start] = data[start:stop]
    elif kind == "insert":
        data[start:start] = rng.randbytes(rng.choice((1, 4, 64)))
    else:
        data[start:stop] = bytes(stop - start)
    path.write_bytes(bytes(data))
    return Change(f"{path.name}: {kind} at byte {start}")


def change_text(path: Path, rng: random.Random) -> Change:
    """Changes the encoding or the line ends of a text file, or adds what does not belong there."""
    data = path.read_bytes()
    kind = rng.choice(("mark", "utf-16", "crlf", "latin-1", "garbage", "nulls", "form feed"))
    if kind == "mark":
        data = b"\xef\xbb\xbf" + data
    elif kind == "utf-16":
        data = data.decode().encode("utf-16")
    elif kind == "crlf":
        data = data.replace(b"\n", b"\r\n")
    elif kind == "latin-1":
        place = rng.randrange(len(data) + 1)
        data = data[:place] + "é".encode("latin-1") + data[place:]
    elif kind == "garbage":
        data += rng.choice((b"\n}", b"<a>", b"\n\x1a", b"x y z", b"#"))
    elif kind == "nulls":
        data += bytes(rng.choice((1, 512)))  # what a crash leaves of some file systems
    else:
        data = data.replace(b" ", b"\f", 1)
    path.write_bytes(data)
    return Change(f"{path.name}: {kind}", is_harmless=kind in ("mark", "utf-16", "crlf"))


def replace_file(path: Path, rng: random.Random) -> Change:
    """Puts something else in the place of a file."""
    kinds = ("nothing", "empty", "folder", "pipe", "loop", "zeros", "link to nothing", "link to its folder", "huge")
    kind = rng.choice((*kinds, "moved and linked"))
    beside = path.with_name(f"{path.name}.moved")
    if kind == "moved and linked":
        shutil.move(path, path.parent.parent / beside.name)
        path.symlink_to(path.parent.parent / beside.name)
        return Change(f"{path.name}: {kind}", is_harmless=True)
    path.unlink()
    if kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "zeros":
        path.symlink_to("/dev/zero")
    elif kind == "link to nothing":
        path.symlink_to(beside)
    elif kind == "link to its folder":
        path.symlink_to(path.parent)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(_HUGE)
    return Change(f"{path.name}: {kind} in its place")


def change_file_or_image(chosen: float, file: Path, images: Path, rng: random.Random) -> Change:
    """Changes a text file of a data set, or replaces an image, by a number from 0 to 1: each way for a quarter."""
    if chosen < 0.25:
        return change_text(file, rng)
    if chosen < 0.5:
        return change_bytes(file, rng)
    if chosen < 0.75:
        return replace_file(file, rng)
    return replace_file(choose_file(images, rng), rng)
