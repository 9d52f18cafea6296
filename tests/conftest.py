"""Small, exact data for all tests. The backend is the one in KERAS_BACKEND, torch when it is unset."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import pytest
from helpers import make_pairs


@pytest.fixture(scope="session", autouse=True)
def _caches_of_their_own(tmp_path_factory):
    """The user's cache folder stays as it is."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("caches"))


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
