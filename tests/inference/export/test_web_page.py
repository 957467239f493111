"""The folder that --format=web writes, and what its page does without a network, in Chromium."""

import io
import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest

from tests.browser import serve
from yolox_jax import storage
from yolox_jax.errors import UserError
from yolox_jax.inference.export import web_page
from yolox_jax.weights.download import DownloadError, sha256

_PAGE = sorted(path.name for path in (web_page.PAGE).iterdir())


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A registry with a small package in place of onnxruntime-web."""
    folder = tmp_path / "registry" / "onnxruntime-web" / "-"
    folder.mkdir(parents=True)
    path = folder / f"onnxruntime-web-{web_page.VERSION}.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name in web_page.RUNTIME.values():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    monkeypatch.setattr(web_page, "SHA256", sha256(path))
    monkeypatch.setenv("YOLOX_JAX_HOME", str(tmp_path / "home"))
    with serve(tmp_path / "registry") as address:
        monkeypatch.setenv("npm_config_registry", f"{address}/")
        yield path


def _write(folder, model=b"a model"):
    web_page.prepare(folder, log=lambda text: None)
    with tempfile.TemporaryDirectory() as written:
        web_page.write(Path(written), model, log=lambda text: None)
        web_page.place(Path(written), folder)


def test_the_folder_has_page_runtime_and_model_and_can_be_written_again(package, tmp_path):
    _write(tmp_path / "web")
    assert sorted(path.name for path in (tmp_path / "web").iterdir()) == sorted(
        [*_PAGE, *web_page.RUNTIME, web_page.MODEL]
    )
    package.unlink()  # it is in the cache folder now
    _write(tmp_path / "web", b"another model")
    assert (tmp_path / "web" / web_page.MODEL).read_bytes() == b"another model"
    for name, packed in web_page.RUNTIME.items():
        assert (tmp_path / "web" / name).read_text() == packed
        assert not name.endswith(".mjs")  # which the tests' server does not know either


@pytest.mark.parametrize("other", [("index.html", "model.onnx"), ("model.onnx",), ("ort.wasm.min.js", "notes/a.txt")])
def test_a_folder_with_other_files_is_left_alone(package, tmp_path, other):
    for name in other:
        (tmp_path / "web" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "web" / name).write_text("mine")
    with pytest.raises(UserError, match="web has other files: give a new folder"):
        _write(tmp_path / "web")
    assert all((tmp_path / "web" / name).read_text() == "mine" for name in other)
    with pytest.raises(UserError, match="cannot be written"):
        _write(tmp_path / "web" / other[0])


@pytest.mark.parametrize("num_written", [0, 1, len(web_page.RUNTIME) + 1, len(web_page.RUNTIME) + len(_PAGE)])
def test_an_interrupted_export_can_be_repeated(package, tmp_path, monkeypatch, num_written):
    write_bytes, written = storage.write_bytes, []

    def write_some(path, data):
        if path.parent == tmp_path / "web" and len(written) == num_written:
            path.with_name(f".{path.name}.0123abcd.unfinished").write_bytes(data[:1])  # what a killed process leaves
            raise KeyboardInterrupt
        written.extend([path] if path.parent == tmp_path / "web" else [])
        write_bytes(path, data)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(storage, "write_bytes", write_some)
        _write(tmp_path / "web")
    assert not (tmp_path / "web" / "index.html").exists()
    _write(tmp_path / "web")
    assert (tmp_path / "web" / "index.html").exists()


def test_a_site_in_a_bucket_is_left_alone_and_a_page_there_replaced(package, gs_bucket):
    site = storage.resolve(f"{gs_bucket.address}/site")
    web_page.prepare(site, log=lambda text: None)
    storage.write_bytes(site / "index.html", b"mine")
    with pytest.raises(UserError, match="gs://.*/site has other files: give a new folder"):
        web_page.prepare(site, log=lambda text: None)
    storage.write_bytes(site / "index.html", (web_page.PAGE / "index.html").read_bytes())
    web_page.prepare(site, log=lambda text: None)


def test_a_runtime_that_is_not_the_expected_one_is_refused(package, tmp_path):
    package.write_bytes(b"something else")
    with pytest.raises(UserError, match="onnxruntime-web.*is not the expected file and was deleted .its SHA-256 is"):
        web_page.prepare(tmp_path / "web", log=lambda text: None)
    package.unlink()
    with pytest.raises(DownloadError, match="without a network, download it on another machine and put it at"):
        web_page.prepare(tmp_path / "web", log=lambda text: None)
    assert not (tmp_path / "web").exists()


# --- in Chromium


@pytest.fixture(scope="module")
def detector_page(browser):
    """An empty page beside detector.js."""
    with serve(web_page.PAGE) as address, browser.new_page() as page:
        page.goto(f"{address}/icon.svg")
        yield page


@pytest.mark.slow
def test_a_worker_that_cannot_be_loaded_is_said_on_the_page(browser, tmp_path):
    shutil.copytree(web_page.PAGE, tmp_path / "web")
    (tmp_path / "web" / "worker.js").unlink()
    (tmp_path / "web" / web_page.MODEL).write_bytes(b"a model")
    with serve(tmp_path / "web") as address, browser.new_page() as page:
        page.goto(address)
        page.locator("#message", has_text="The file worker.js cannot be loaded: it is not on the server").wait_for()
        assert page.inner_text("#status") == "The model cannot be started"
        assert not page.locator("#progress").is_visible()


_START = """async ([model, differences]) => {
    const started = []
    window.Worker = class {
        postMessage({ id, method, args: [backend] }) {
            started.push(backend)
            const result = { backend, difference: differences[backend] }
            queueMicrotask(() => this.onmessage({ data: { id, result } }))
        }
    }
    const { Detector } = await import("./detector.js")
    const detector = Object.assign(new Detector(), { model })
    return [(await detector.start("")).backend, (await detector.start("webgpu")).backend, started]
}"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("can_check", "gpu", "chosen", "forced"),
    [
        (True, {"isWithin": True}, "webgpu", "webgpu"),
        (True, {"isWithin": False}, "wasm", "wasm"),
        (True, None, "wasm", "webgpu"),
        (False, None, "wasm", "webgpu"),
    ],
)
def test_a_gpu_is_the_default_only_if_a_test_image_confirms_it(detector_page, can_check, gpu, chosen, forced):
    model = {"hasGpu": True, "isSlowGpu": False, "canCheck": can_check}
    backends = detector_page.evaluate(_START, [model, {"webgpu": gpu}])
    assert backends[:2] == [chosen, forced]
    assert ("webgpu" == backends[2][0]) == can_check


_DRAW = """async ([detections, chosen]) => {
    const { draw } = await import("./view.js")
    const canvas = new OffscreenCanvas(400, 300)
    const context = canvas.getContext("2d"), captions = []
    context.fillRect = (left, top, width, height) => captions.push({ left, top, width, height })
    context.fillText = text => Object.assign(captions.at(-1), { text })
    draw(canvas, canvas, detections, 1, detections[chosen] ?? null)
    return captions.filter(each => each.text)
}"""


@pytest.mark.slow
def test_captions_do_not_cover_each_other(detector_page):
    # Three at the top edge, where two have room; one alone; two at the bottom edge, where one has room.
    corners = [(10, 5), (20, 5), (30, 10), (200, 100), (200, 290), (210, 290)]
    detections = [
        {"label": 0, "name": f"cell {i}", "score": 0.9 - i / 10, "box_xyxy": [x, y, x + 90, y + 90]}
        for i, (x, y) in enumerate(corners)
    ]
    drawn = {chosen: detector_page.evaluate(_DRAW, [detections, chosen]) for chosen in (None, 2)}
    assert [(each["text"], each["top"]) for each in drawn[None]] == [
        ("cell 0 0.90", 0),
        ("cell 1 0.80", 18),
        ("cell 3 0.60", 82),
        ("cell 4 0.50", 272),
    ]
    assert drawn[2][0]["text"] == "cell 2 0.70"  # the chosen one's is always there
    assert all(each["width"] > 40 for each in drawn[None])
