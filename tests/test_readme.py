"""Every Python block of the README runs as it stands."""

import re

import keras
import pytest
from helpers import REPOSITORY, draw_pair, make_pairs
from PIL import Image

from semseg.export.formats import FORMATS, export_model
from semseg.inference.runtimes import Description
from semseg.labels.palettes import cityscapes_palette
from semseg.runs.config import RunConfig

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with pairs in images/, a trained model and a photo."""
    from semseg.segmentation_model import Unet

    root = tmp_path_factory.mktemp("project")
    make_pairs(root / "images", train=4, val=2)
    (root / "outputs").mkdir()
    model = Unet((32, 32, 3), 19, filters=4)
    model.save(root / "outputs" / "unet_model.keras")
    if keras.backend.backend() in FORMATS["onnx"].packages:
        described = Description("onnx", "logits", (32, 32), cityscapes_palette().to_dict())
        export_model(model, root / "outputs" / "unet_model.onnx", described)
    RunConfig(data="images", image_size=(32, 32)).save(root / "outputs" / "config.json")
    Image.fromarray(draw_pair(0)[0]).save(root / "photo.jpg")
    return root


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.splitlines()[0])
def test_a_block_runs(code, project, monkeypatch):
    monkeypatch.chdir(project)
    if "onnxruntime" in code and not (project / "outputs" / "unet_model.onnx").exists():
        pytest.skip(f"{keras.backend.backend()} writes no ONNX")
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    if "up_block" in code:
        assert [output.shape for output in names["model"].outputs] == [(None, 128, 128, 1)] * 2
    if "FastModel" in code:
        assert (project / "model.keras").exists()
    if "open_run" in code:
        assert names["probabilities"].shape == (32, 32, 19) and (project / "photo.png").exists()
    if "ids = logits" in code:
        assert names["ids"].shape == (32, 32)
    if "load_model" in code:
        assert isinstance(names["model"], keras.Model)
    if "open_dataset" in code:
        assert names["colors"].shape == (128, 128, 3)


def test_there_are_blocks_and_the_two_commands_stand_first():
    assert len(BLOCKS) == 6
    commands = re.findall(r"```bash\n(.*?)\n```", README, re.DOTALL)
    assert commands[0] == "pip install -r requirements.txt && KERAS_BACKEND=torch python main.py --epochs 10"
    assert commands[1] == "pip install -r tests/requirements.txt && python -m pytest -n auto --dist loadfile"


def test_the_table_of_flags_names_every_flag_with_its_default():
    from semseg.runs.config import RunConfig

    defaults = RunConfig()
    for name in RunConfig.__dataclass_fields__:
        flag = "--" + name.replace("_", "-")
        (row,) = [line for line in README.splitlines() if re.match(rf"\| `{flag}[ `]", line)]
        default = getattr(defaults, name)
        shown = {"image_size": f"{defaults.image_size[0]}", "classes": "found", "limit": "all", "backend": "KERAS"}
        assert shown.get(name, str(default)) in row.split("|")[2], row


@pytest.mark.plain
def test_the_table_of_networks_names_every_network_with_what_it_costs():
    from semseg.architectures import ARCHITECTURES, build_model
    from semseg.architectures.cost import count_flops

    for name in ARCHITECTURES:
        options = {"encoder_weights": "none"} if name == "encoder_unet" else {}
        model = build_model(name, (128, 128, 3), 19, filters=16, **options)
        costs = f"{model.count_params() / 1e6:.2f}".removeprefix("0") + f", {count_flops(model) / 1e9:.2f}"
        (row,) = [line for line in README.splitlines() if line.startswith(f"| `{name}` | ")]
        assert row.endswith(f" | {costs} |"), (row, costs)
