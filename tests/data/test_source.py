"""Every source and view has the whole Source protocol, and no code probes a source with getattr or hasattr."""

import ast

import cv2
import numpy as np
import pytest

from tests.data.made_source import MadeSource, striped
from tests.data.sources.test_formats import WRITERS
from tests.material import ROOT
from yolox_jax.data.sources.open import open_split
from yolox_jax.data.sources.problems import MISSING_FILE
from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.data.views import chain
from yolox_jax.data.views.bad_images import StandInSource
from yolox_jax.data.views.cache import CachedSource, FittedSource
from yolox_jax.data.views.naming import NamingSource
from yolox_jax.data.views.repeat_factor import RepeatedSource
from yolox_jax.types import Problem, Source

VIEWS = {
    "bad images": StandInSource,
    "repeat factor": lambda source: RepeatedSource(source, 1.0),
    "fitting": lambda source: FittedSource(source, (32, 32)),
    "cache": lambda source: CachedSource(source, 1 << 20),
    "naming": NamingSource,
}


@pytest.mark.parametrize("kind", [*WRITERS, "shapes"])
def test_every_source_has_all_of_the_protocol(kind, tmp_path):
    source = ShapesSource(3, seed=0) if kind == "shapes" else open_split(WRITERS[kind](tmp_path), "train")
    assert isinstance(source, Source)
    assert list(source.problems) == []
    file = source.encoded(0)
    if kind == "shapes":
        assert file is None
    else:
        np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR), source[0].image)


class WithFiles(ShapesSource):
    """Shapes that pretend to have files and problems."""

    problems = (Problem(MISSING_FILE, "train.json", "image 7", "7.jpg", "left out"),)

    def encoded(self, index):
        return f"file {self.image_id(index)}".encode()


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_has_all_of_the_protocol_and_passes_it_through(view):
    source = WithFiles(5, seed=0)
    seen = VIEWS[view](source)
    assert isinstance(seen, Source)
    assert seen.class_names == source.class_names
    assert seen.problems == source.problems
    assert seen.ground_truth() == source.ground_truth()
    for index in range(len(seen)):
        id = seen.image_id(index)
        assert (seen[index].image_id, seen.encoded(index)) == (id, f"file {id}".encode())
        assert seen.num_boxes(index) == len(seen[index].boxes_xyxy)


def test_the_chain_of_training_fits_caches_and_keeps_order_and_ids():
    source = ShapesSource(4, seed=0)
    configured = chain.as_configured(source, bad_images="replace", repeat_threshold=1.0, threads=1)
    read = chain.as_read_by_training(configured, (48, 64), cache_bytes=1 << 20)
    assert len(read) == len(configured) > len(source)
    assert [read.image_id(i) for i in range(len(read))] == [configured.image_id(i) for i in range(len(read))]
    assert all(max(read[i].image.shape[0] / 48, read[i].image.shape[1] / 64) == 1 for i in range(len(read)))
    assert read[0] is read[0]


def test_the_chain_changes_nothing_if_nothing_is_configured():
    source = MadeSource(striped(), [[2, 4, 12, 20]], length=3)
    assert chain.as_configured(source, bad_images="refuse", repeat_threshold=0.0, threads=1) is source


def test_no_code_probes_a_source_with_getattr_or_hasattr():
    for path in [ROOT / "train.py", ROOT / "eval.py", *ROOT.glob("yolox_jax/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("getattr", "hasattr")
            ):
                asked = ast.unparse(node.args[0])
                assert "source" not in asked.lower(), f"{path}:{node.lineno}: use the Source protocol for {asked}"
