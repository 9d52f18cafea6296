"""The notebooks run from top to bottom on a few scenes, draw what they promise, and are kept without outputs."""

import base64
from io import BytesIO

import nbformat
import numpy as np
import pytest
from helpers import REPOSITORY
from nbclient import NotebookClient
from PIL import Image

pytestmark = pytest.mark.plain  # what the notebooks call is tested on every backend, each in its room

FOLDER = REPOSITORY / "notebooks"
NAMES = [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]
SMALL = {"model": 'flags = ["--epochs", "1", "--filters", "2", "--image-size", "32"]'}
STRICT = """
import warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy keyword", DeprecationWarning)
"""


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Runs a notebook as it stands, but for the cell after its parameters, beside a small demo set in images/."""
    from semseg.data.demo import make_demo

    root = tmp_path_factory.mktemp("project")
    make_demo(root / "images", num_train=6, num_val=3)
    done = {}

    def run(name):
        if name not in done:
            notebook = read(name)
            (place,) = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
            notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(SMALL.get(name, "") + STRICT))
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PYTHONPATH", str(REPOSITORY))
                patch.setenv("IPYTHONDIR", str(root / "ipython"))
                done[name] = notebook  # as far as it gets
                NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(root)}}).execute()
        return done[name], root

    return run


EACH = pytest.mark.parametrize("name", NAMES)


@EACH
def test_a_notebook_runs_from_top_to_bottom_without_a_warning(name, executed):
    outputs = [output for cell in code_of(executed(name)[0]) for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert "".join(output.text for output in outputs if output.get("name") == "stderr") == ""


@EACH
def test_every_cell_that_shows_a_picture_shows_one_with_something_in_it(name, executed):
    notebook, _ = executed(name)
    drawing = [cell for cell in code_of(notebook) if "Image(" in cell.source]
    assert len(drawing) == {"data": 4, "model": 7}[name]
    for cell in drawing:
        (shown,) = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
        pixels = np.asarray(Image.open(BytesIO(base64.b64decode(shown))).convert("RGB"))
        assert min(pixels.shape[:2]) > 200
        assert len(np.unique(pixels[::8, ::8].reshape(-1, 3), axis=0)) > 20, cell.source


def text_of(notebook):
    return "".join(output.get("text", "") for cell in code_of(notebook) for output in cell.outputs)


def test_the_data_notebook_says_what_the_masks_mean_and_finds_the_damage_it_did(executed):
    notebook, root = executed("data")
    text = text_of(notebook)
    assert "19 classes (multiclass), found as cityscapes: road, sidewalk" in text
    for found in ("train/1.jpg: cannot be read", "train/2.jpg: an empty file", "train/3.jpg = val/1.jpg",
                  "train/4.jpg (turned (upside down))"):  # fmt: skip
        assert found in text
    assert (root / "outputs" / "notebook" / "borders.png").exists()  # the demo set's borders are blended


def test_the_model_notebook_trains_a_run_where_there_is_none_and_a_network_of_its_own(executed):
    import keras

    notebook, root = executed("model")
    text = text_of(notebook)
    assert "There is no run in outputs/" in text and "macro_iou" in text and "epoch 2: loss" in text
    assert (root / "outputs" / "report.html").exists()
    own = keras.saving.load_model(root / "outputs" / "notebook" / "own.keras")
    assert {"down1_conv1", "bottom_conv1", "up1_conv1"} <= {layer.name for layer in own.layers}


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_small_and_without_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 20_000
    for cell in code_of(notebook):
        assert cell.outputs == [] and cell.execution_count is None, f"clear the outputs of {name}.ipynb"
        assert cell.metadata.keys() <= {"tags"}
        assert len(cell.source.splitlines()) <= 16
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}


def test_every_notebook_is_run_and_stands_in_the_readme():
    assert NAMES == ["data", "model"]
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert all(f"`notebooks/{name}.ipynb`" in readme for name in NAMES)
