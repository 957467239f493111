"""Chromium, static servers and npm for tests of pages. A test skips, with the reason, where one of them is missing."""

import contextlib
import functools
import http.server
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tests.material import ROOT
from tests.storage_servers import HOST, serving

# Two cameras that show a moving pie, and a GPU that the CPU imitates.
_ARGUMENTS = (
    "--use-fake-device-for-media-stream=device-count=2",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, as playwright's Browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=list(_ARGUMENTS))
        yield browser
        browser.close()


def serve(folder: Path, **headers: str) -> contextlib.AbstractContextManager[str]:
    """Serves a folder as nginx does, which does not know the type of .mjs; with further headers. Gives its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        extensions_map: ClassVar = http.server.SimpleHTTPRequestHandler.extensions_map | {
            ".mjs": "application/octet-stream"
        }

        def end_headers(self):
            for name, value in headers.items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *_):
            pass

    return serving(http.server.ThreadingHTTPServer((HOST, 0), functools.partial(Handler, directory=folder)))


@contextlib.contextmanager
def npm_registry(package: str, version: str) -> Iterator[str]:
    """Serves one package, which npm gave, at the address that it has in a registry; gives the registry's address."""
    cache = Path(os.environ.get("YOLOX_JAX_TEST_CACHE", ROOT / ".jax_cache")) / "npm"
    file = cache / package / "-" / f"{package}-{version}.tgz"
    if not file.is_file():
        if shutil.which("npm") is None:
            pytest.skip(f"needs npm, which gives {package}")
        unfinished = file.parent / f"unfinished-{os.getpid()}"
        unfinished.mkdir(parents=True)
        command = ["npm", "pack", f"{package}@{version}", "--pack-destination", str(unfinished)]
        packed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if packed.returncode:
            pytest.skip(f"needs {package} from npm: {packed.stderr.strip()[-300:]}")
        (unfinished / file.name).replace(file)
        unfinished.rmdir()
    with serve(cache) as address:
        yield address
