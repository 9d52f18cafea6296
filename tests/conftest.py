"""Small, exact data for all tests. The backend is the one in KERAS_BACKEND, torch when it is unset."""

import os
import re
import shutil
import sys

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks are small: more threads only wait for each other
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiling takes twice as long with them

from pathlib import Path

import pytest
from helpers import make_pairs

from semseg.backend.importing import import_keras


def pytest_collectstart():
    """Keras as the commands import it, in half the time, where tests run: xdist's first process only hands them out."""
    if "keras" not in sys.modules:
        import_keras(os.environ["KERAS_BACKEND"])
        from semseg.backend.devices import leave_tensorflow_out

        leave_tensorflow_out()  # which Keras would import to set a seed


@pytest.hookimpl(tryfirst=True)  # before those that are not plain are chosen
def pytest_collection_modifyitems(items):
    """Examples in docstrings run once: tests of their own hold what they show on every backend."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker(pytest.mark.plain)


@pytest.fixture(scope="session", autouse=True)
def _caches_of_their_own(tmp_path_factory):
    """The user's cache folder stays as it is."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("caches"))


@pytest.fixture(scope="session", autouse=True)
def _drawing_in_this_process():
    """Most tests have so few pictures that another process would take longer to start than to draw them."""
    from semseg.cli import drawing

    drawing.PROCESSES = 0


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Path:
    """A folder of pairs that no test changes."""
    return make_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def dataset(pairs):
    """The data set of `pairs`."""
    from semseg.data import open_dataset

    return open_dataset(pairs)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; tests that need it are skipped, saying so, where there is none."""
    folder = os.environ.get("SEMSEG_DATA")
    if not folder:
        pytest.skip("SEMSEG_DATA is not set: no real data here")
    return Path(folder)


@pytest.fixture(scope="session")
def browser():
    """Chromium; tests that need it are skipped, saying so, where there is none."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser to look with")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    with driver.sync_playwright() as playwright:
        started = playwright.chromium.launch(  # its sandbox refuses to start as root; the pages are our own
            executable_path=path, args=["--no-sandbox"], timeout=120_000
        )
        yield started
        started.close()


@pytest.fixture()
def browser_page(browser):
    """An empty page that may load files and from this machine; at the end nothing may have gone wrong in it.

    Its `problems` hold errors, warnings on the console, and addresses elsewhere that it asked for; none was answered.
    """
    context = browser.new_context()
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.problems = []

    def refuse(route):
        page.problems.append(f"asked for {route.request.url}")
        route.abort()

    def note(message):
        if message.type in ("error", "warning"):
            page.problems.append(f"console: {message.text}")

    page.route(re.compile(r"^(https?|wss?)://(?!127\.0\.0\.1|localhost|\[::1\])"), refuse)
    page.on("console", note)
    page.on("pageerror", lambda error: page.problems.append(f"error: {error}"))
    yield page
    problems = page.problems
    context.close()
    assert problems == []
