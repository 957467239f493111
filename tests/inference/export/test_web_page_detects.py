"""The page that --format=web writes, in Chromium: it finds what Detector finds."""

import base64
import json
import shutil

import cv2
import jax
import numpy as np
import pytest
from flax.traverse_util import path_aware_map
from PIL import Image

from tests.browser import npm_registry, serve
from tests.material import material
from tests.training import toy
from yolox_jax.augment import geometry
from yolox_jax.inference import pretrained
from yolox_jax.inference.detector import Detector
from yolox_jax.inference.export import certificate, runtimes, web_page
from yolox_jax.inference.export.formats import FORMATS, ExportConfig
from yolox_jax.inference.predict import of_one_image
from yolox_jax.models import measured_statistics, yolox
from yolox_jax.training import optim, state
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.visualize.drawing import class_colour

_OWN, _OWN_HW = ("Mensch", "Stuhl", "Kühlschrank"), (96, 128)  # classes and input size of the second page


def _photos():
    return sorted(material("data/coco_val100/images").glob("*.jpg"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three photographs in which both networks find something, and one that its EXIF orientation turns."""
    *three, fourth = (_photos()[place] for place in (2, 57, 8, 7))
    turned = tmp_path_factory.mktemp("turned") / "turned.jpg"
    orientation = Image.Exif()
    orientation[0x112] = 6
    Image.open(fourth).rotate(90, expand=True).save(turned, exif=orientation)
    return [*three, turned]


def _own_run(folder):
    """Makes a run directory of tiny: random weights, which find something in photographs and nothing in gray."""
    model = yolox.create("tiny", len(_OWN))
    images = np.stack([geometry.letterbox(cv2.imread(str(photo)), _OWN_HW)[0] for photo in _photos()[:10]])
    # Otherwise each layer makes less of the image. With this seed, no scores are so close that rounding swaps them.
    variables = measured_statistics.measure(model, state.init_variables(model, seed=14), [images])
    variables = jax.tree.map(np.asarray, variables | {"params": path_aware_map(_spread, variables["params"])})
    checkpoints = Checkpoints(folder)
    meta = toy.meta(1, model="tiny", class_names=_OWN, config={"input_size": list(_OWN_HW), "optimizer": "sgd"})
    checkpoints.save(state.create(variables, optim.sgd(0.9, 0.0)), meta)
    checkpoints.close()
    return folder


def _spread(path, array):
    """Spreads the scores, and raises them. Boxes stay as they are, since their rounding would be spread too."""
    if "_preds" not in "/".join(path) or "reg_preds" in path:
        return array
    return 3 * array if path[-1] == "kernel" else array + 2


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Two pages: the official nano; and a run of own classes, with a certificate in whose image nothing is found."""
    own_run = _own_run(tmp_path_factory.mktemp("run"))
    sources = {"coco": (material("weights/yolox_nano_coco.pth"), 300), "own": (own_run, 25)}
    found = {}
    with pytest.MonkeyPatch.context() as patch, npm_registry("onnxruntime-web", web_page.VERSION) as registry:
        patch.setenv("YOLOX_JAX_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("npm_config_registry", registry)
        for name, (path, max_detections) in sources.items():
            loaded = pretrained.load(str(path), "float32")
            detect = pretrained.detector_config(conf=web_page.LEAST_CONF, max_detections=max_detections)
            predict = pretrained.make_detect(loaded, detect)
            run = of_one_image(predict, detect, loaded.size_hw)
            pictures = None if name == "coco" else [np.full((*loaded.size_hw, 3), 114, np.uint8)]  # gray
            parts = run, loaded.class_names, loaded.size_hw, detect, certificate.FLOAT32, pictures
            certified = certificate.make(*parts)
            assert bool(certified.num_detections) == (name == "coco")
            folder = tmp_path_factory.mktemp(name) / "web"
            FORMATS["web"][1](folder, loaded, ExportConfig(loaded.size_hw, None, detect, certificate=certified))
            found[name] = folder, Detector(predict, loaded.class_names, loaded.size_hw, (1,), log=lambda text: None)
    assert found["own"][1].class_names == _OWN
    return found


def _opened(browser, address, **options):
    page = browser.new_context(accept_downloads=True, **options).new_page()
    page.set_default_timeout(60_000)
    page.goto(address)
    page.locator("#empty .choose:enabled").wait_for()
    return page


@pytest.fixture(scope="module", params=["coco", "own"])
def page_and_detector(request, browser, pages):
    folder, detector = pages[request.param]
    with serve(folder) as address:
        page = _opened(browser, address, viewport={"width": 1200, "height": 800})
        yield page, detector
        page.context.close()


def _choose(page, photo):
    page.set_input_files("#file", photo)


def _drop(page, path):
    """Drops a file on the picture's place. Nothing but the page's script may act on it: a browser would open it."""
    data = base64.b64encode(path.read_bytes()).decode()
    is_left_to_browser = page.evaluate(
        """([name, data]) => {
            const dataTransfer = new DataTransfer()
            dataTransfer.items.add(new File([Uint8Array.from(atob(data), each => each.charCodeAt(0))], name))
            const event = type => new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true })
            return ["dragover", "drop"].map(type => document.getElementById("stage").dispatchEvent(event(type)))
        }""",
        [path.name, data],
    )
    assert is_left_to_browser == [False, False]


def _detect(page, photo, put=_choose):
    """Puts a photo on the page, at the slider's lowest threshold. Returns what it saves as JSON."""
    page.locator("#status").evaluate("element => element.replaceChildren()")
    put(page, photo)
    page.locator("#status", has_text="ms network").wait_for()
    page.locator("#threshold").fill(str(web_page.LEAST_CONF))
    with page.expect_download() as download:
        page.locator("#save-json").click()
    assert download.value.suggested_filename == f"{photo.stem} detected.json"
    return json.loads(download.value.path().read_text())


def _assert_equal(saved, expected, box_pixels, score):
    assert len(saved["detections"]) == len(expected)
    for ours, its in zip(expected.as_dicts(), saved["detections"], strict=True):
        assert (its["name"], its["label"]) == (ours["name"], ours["label"])
        assert its["score"] == pytest.approx(ours["score"], abs=score)
        assert its["box_xyxy"] == pytest.approx(ours["box_xyxy"], abs=box_pixels)


@pytest.mark.slow
def test_the_page_finds_what_detector_finds_in_photographs_chosen_or_dropped(page_and_detector, photos):
    page, detector = page_and_detector
    nums_found = []
    for photo, put in zip(photos, (_choose, _drop, _choose, _drop), strict=True):
        saved, expected = _detect(page, photo, put), detector(photo)
        assert saved["image"] == photo.name
        assert [saved["height"], saved["width"]] == list(cv2.imread(str(photo)).shape[:2])
        _assert_equal(saved, expected, 0.05, 1e-4)  # stricter than half a pixel
        nums_found.append(len(expected))
    assert min(nums_found[:3]) >= 3
    assert sum(nums_found) >= 30
    assert page.locator("#certificate").is_visible() == ("person" in detector.class_names)


@pytest.mark.slow
def test_the_page_finds_on_webgpu_what_detector_finds(browser, pages, photos):
    """On a GPU that the CPU imitates, which takes long to compile."""
    folder, detector = pages["own"]
    with serve(folder) as address:
        page = _opened(browser, address)
        page.set_default_timeout(180_000)
        page.locator("#backend").select_option("webgpu")
        page.locator("#status", has_text="WebGPU").wait_for()
        saved = _detect(page, photos[0])
        assert "WebGPU" in page.inner_text("#status")
        _assert_equal(saved, detector(photos[0]), 0.5, 1e-3)
        page.context.close()


@pytest.mark.slow
def test_a_test_image_of_the_certificate_can_be_tried(browser, pages):
    certified, _ = runtimes.open_exported(pages["coco"][0])
    with serve(pages["coco"][0]) as address:
        page = _opened(browser, address)
        page.locator("#examples button").nth(1).click()
        page.locator("#status", has_text="ms network").wait_for()
        assert float(page.locator("#threshold").get_attribute("min")) == certified.detect.conf == web_page.LEAST_CONF
        page.locator("#threshold").fill(str(web_page.LEAST_CONF))
        assert page.locator("#list li").count() == len(certified.images[1].found.scores) > 0
        page.context.close()


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere_or_sent(browser, pages, photos):
    folder, _ = pages["own"]
    requests = []
    with serve(folder) as address:
        context = browser.new_context(accept_downloads=True)
        context.on("request", lambda request: requests.append(request))
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(address)
        page.locator("#empty .choose:enabled").wait_for()
        _detect(page, photos[0])
        context.close()
    sent = [each for each in requests if not each.url.startswith(("blob:", "data:"))]  # those two are in the browser
    assert all(each.method == "GET" and each.url.startswith(f"{address}/") for each in sent)
    names = {each.url.removeprefix(f"{address}/") or "index.html" for each in sent}
    assert names <= {path.name for path in folder.iterdir()}  # and no query
    of_worker = {"letterbox.js", "ort.wasm.min.js", "ort-wasm-simd-threaded.wasm"}
    assert {"index.html", "worker.js", web_page.MODEL, *of_worker} <= names


@pytest.mark.slow
def test_threshold_classes_list_and_picture(page_and_detector, photos):
    page, _ = page_and_detector
    detections = _detect(page, photos[0])["detections"]
    rows = page.locator("#list li")
    assert rows.count() == len(detections)
    page.locator("#threshold").fill("0.3")
    certain = [each for each in detections if each["score"] >= 0.3]
    assert 0 < rows.count() == len(certain) < len(detections)
    name = certain[0]["name"]
    chip = page.locator("#classes button", has_text=name)
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    assert rows.count() == sum(each["name"] != name for each in certain)
    chip.click()
    rows.first.locator("button").focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("button.chosen").inner_text().startswith(certain[min(1, len(certain) - 1)]["name"])
    with page.expect_download() as download:
        page.locator("#save-image").click()
    assert cv2.imread(str(download.value.path())).shape == cv2.imread(str(photos[0])).shape


@pytest.mark.slow
def test_what_goes_wrong_is_said_on_the_page(page_and_detector, tmp_path):
    page, _ = page_and_detector
    (tmp_path / "notes.jpg").write_text("no picture")
    page.set_input_files("#file", tmp_path / "notes.jpg")
    page.locator("#message", has_text="notes.jpg is not a picture that this browser can read").wait_for()
    (tmp_path / "dropped.txt").write_text("no picture")
    _drop(page, tmp_path / "dropped.txt")
    page.locator("#message", has_text="dropped.txt is not a picture").wait_for()
    page.locator(".camera:visible").click()
    page.locator("#message", has_text="The camera was not allowed").wait_for()


@pytest.mark.slow
def test_a_camera_is_detected_in_until_it_is_stopped(browser, pages):
    with serve(pages["own"][0]) as address:
        page = _opened(browser, address, permissions=["camera"])
        page.locator("#empty .camera").click()
        page.locator("#status", has_text="per second").wait_for()
        page.locator("#actions .camera", has_text="Stop camera").click()
        page.locator("#actions .camera", has_text="Camera").wait_for()
        page.context.close()


@pytest.mark.slow
def test_cameras_can_be_changed_and_may_stop(browser, pages):
    with serve(pages["own"][0]) as address:
        page = _opened(browser, address, permissions=["camera"], bypass_csp=True)  # for wait_for_function
        page.evaluate(
            """() => {
                // A loop takes a frame, and asks for the next at the end: so many loops are between the two.
                Object.assign(window, { loops: 0, mostLoops: 0, rounds: 0, streams: [] })
                const { createImageBitmap, requestAnimationFrame } = window
                window.createImageBitmap = (...args) => {
                    mostLoops = Math.max(mostLoops, ++loops)
                    return createImageBitmap(...args)
                }
                window.requestAnimationFrame = callback => {
                    loops--
                    rounds++
                    return requestAnimationFrame(callback)
                }
                const devices = navigator.mediaDevices, getUserMedia = devices.getUserMedia.bind(devices)
                devices.getUserMedia = async wanted => {
                    const stream = await getUserMedia(wanted)
                    streams.push(stream)
                    return stream
                }
            }"""
        )
        page.locator("#empty .camera").click()
        page.locator("#status", has_text="per second").wait_for()
        page.locator("#cameras").select_option(index=1)
        page.locator("#cameras").select_option(index=0)  # before the other is open
        page.wait_for_function("streams.length == 3", polling=50)
        for _ in range(2):  # the first may have frames of the other camera
            page.evaluate("rounds = mostLoops = 0")
            page.wait_for_function("rounds >= 4", polling=50)
        assert page.evaluate("mostLoops") == 1
        assert page.evaluate("streams.filter(each => each.active).length") == 1
        page.evaluate("streams.find(each => each.active).getTracks()[0].dispatchEvent(new Event('ended'))")
        page.locator("#message", has_text="The camera has stopped").wait_for()
        page.locator("#actions .camera", has_text="Camera").wait_for()
        assert not page.evaluate("streams.some(each => each.active)")
        page.context.close()


@pytest.mark.slow
def test_threads_are_used_where_the_server_allows_them_and_the_cpu_if_webgpu_fails(browser, pages, tmp_path):
    isolated = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
    shutil.copytree(pages["own"][0], tmp_path / "web")
    (tmp_path / "web" / "ort.webgpu.min.js").unlink()
    with serve(tmp_path / "web", **isolated) as address:
        page = _opened(browser, address)
        threads = page.evaluate("Math.min(4, navigator.hardwareConcurrency)")
        assert f"CPU, {threads} thread" in page.inner_text("#status")
        page.locator("#backend").select_option("webgpu")
        page.locator("#message", has_text="WebGPU failed, so the CPU is used").wait_for()
        assert page.locator("#backend").input_value() == "wasm"
        page.context.close()


@pytest.mark.slow
def test_letterboxing_and_colors_are_those_of_the_package(page_and_detector):
    page, _ = page_and_detector
    rng = np.random.default_rng(0)
    # Smaller, larger, exactly half, of the same size, and a line.
    for hw in ((97, 61), (20, 31), (128, 96), (64, 50), (1, 300), (300, 2)):
        bgr = rng.integers(0, 256, (*hw, 3), np.uint8)
        rgba = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGBA)
        expected, scale = geometry.letterbox(bgr, (64, 96))
        found = page.evaluate(
            """async ([data, width, height]) => {
                const { letterbox } = await import("./letterbox.js")
                const rgba = Uint8ClampedArray.from(atob(data), each => each.charCodeAt(0))
                const { bgr, scale } = letterbox(rgba, width, height, 96, 64)
                return [Array.from(bgr), scale]
            }""",
            [base64.b64encode(rgba.tobytes()).decode(), hw[1], hw[0]],
        )
        np.testing.assert_array_equal(np.array(found[0], np.uint8).reshape(expected.shape), expected)
        assert found[1] == scale
    colors = page.evaluate(
        """async () => {
            const { classRgb } = await import("./view.js")
            return Array.from({ length: 80 }, (_, label) => classRgb(label))
        }"""
    )
    assert colors == [list(class_colour(label)[::-1]) for label in range(80)]


@pytest.mark.slow
def test_the_certificate_of_the_folder_is_its_model_s(pages):
    for folder, _ in pages.values():
        certified, run = runtimes.open_exported(folder)
        assert certificate.compare(certified, run).is_within(certified.bound)
