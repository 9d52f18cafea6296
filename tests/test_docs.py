"""The manual says what is true: every block of README.md and docs/ is tried, and tables name what there is."""

import argparse
import importlib.util
import json
import re
import shutil
import textwrap
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
import yaml
from helpers import REPOSITORY, draw_numbers, draw_pair, make_pairs, save_pair
from manual import DOCS, PAGES, Block, anchors, blocks, commands, links, read, rows
from PIL import Image

import semseg
from semseg import cli
from semseg.architectures import build_model
from semseg.architectures.band_scaling import scale_bands
from semseg.backend.launchers import JAX_VARIABLES
from semseg.cli.flags import build_parser, training_parser
from semseg.export.formats import FORMATS, export_model
from semseg.images.bands import Bands
from semseg.inference.card import ModelCard
from semseg.labels.palettes import Palette
from semseg.runs.config import RunConfig

PACKAGE = REPOSITORY / "semseg"
BLOCKS = blocks()
DIRECTIVES = {"{toctree}", "{eval-rst}", "{include}"}  # which Sphinx checks when it builds the pages


def each(found: list, name: Callable) -> pytest.MarkDecorator:
    """A case for each, named."""
    return pytest.mark.parametrize("case", found, ids=name)


def of_language(name: str) -> list[Block]:
    return list({block.text: block for block in BLOCKS if block.language == name}.values())


# ----------------------------------------------------------------------------------------------- the arguments


def parse(words: list[str]) -> argparse.Namespace:
    """What the real parsers make of a command; the first word is `main.py`, or a command of `python -m semseg`."""
    return training_parser().parse_args(words[1:]) if words[0] == "main.py" else build_parser().parse_args(words)


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of `python -m semseg <command>`."""
    (subparsers,) = [action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return subparsers.choices[command]


# --------------------------------------------------------------------------------------------- a small project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder in which the manual's commands and lines of Python find what they name."""
    root = tmp_path_factory.mktemp("project")
    make_pairs(root / "images", train=4, val=2)
    shutil.copytree(root / "images", root / "my_data")
    for i in range(3):
        save_pair(root / "other_data" / f"{i}.png", 500 + i)
    (root / "my_photos").mkdir()
    photo = Image.fromarray(draw_pair(0)[0])
    for path in (root / name for name in ("photo.jpg", "map.tif", "my_photos/1.jpg", "my_photos/2.jpg")):
        photo.save(path)
    writer = cv2.VideoWriter(str(root / "drive.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (32, 32))
    for _ in range(2):
        writer.write(np.asarray(photo))
    writer.release()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        small = ["--epochs", "1", "--filters", "2", "--image-size", "32", "--workers", "0"]
        assert cli.main(small) == 0
        assert cli.main([*small, "--model", "ddunet", "--output", "outputs_b"]) == 0
        shutil.copytree("outputs", "outputs_a")
        if keras.backend.backend() in FORMATS["onnx"].packages:
            assert cli.commands(["export", "outputs", "--format", "onnx"]) == 0
            export_network_of_bands(root)
            export_network_of_crops(root)
    return root


def export_network_of_bands(root: Path) -> None:
    """`outputs_bands/unet_model.onnx` for 4 bands of 16 bits, and `scene.tif` with these."""
    tifffile = pytest.importorskip("tifffile")
    low, high = (100.0,) * 4, (900.0,) * 4
    bands = Bands(4, "uint16", (), low, high, low)
    model = scale_bands(build_model("unet", (32, 32, 4), 3, filters=2), low, high, "uint16")
    (root / "outputs_bands").mkdir()
    card = ModelCard(root / "outputs_bands" / "unet_model.onnx", "onnx", "logits", (32, 32), Palette.numbered(3))
    export_model(model, replace(card, bands=bands))
    photo = np.random.default_rng(0).integers(100, 900, (48, 64, 4)).astype(np.uint16)
    tifffile.imwrite(root / "scene.tif", photo, photometric="minisblack", planarconfig="contig")


def export_network_of_crops(root: Path) -> None:
    """`outputs_crops/unet_model.onnx`, which takes crops of 32x32 at half the photos' size."""
    (root / "outputs_crops").mkdir()
    card = ModelCard(root / "outputs_crops" / "unet_model.onnx", "onnx", "logits", (32, 32), Palette.numbered(3))
    export_model(build_model("unet", (32, 32, 3), 3, filters=2), replace(card, scale=0.5))


# ------------------------------------------------------------------------------------------------ Python blocks


@pytest.mark.plain  # what the blocks call is tested on every backend
@each(of_language("python"), str)
def test_a_block_of_python_runs(case, project, monkeypatch, capsys):
    if "onnxruntime" in case.text and keras.backend.backend() not in FORMATS["onnx"].packages:
        pytest.skip(f"{keras.backend.backend()} writes no ONNX")
    monkeypatch.chdir(project)
    capsys.readouterr()
    names = {}
    exec(compile(case.text, str(case), "exec"), names)
    said = re.findall(r"print\(.*\)  # (.*)", case.text)
    assert all(text in capsys.readouterr().out for text in said)
    if "up_block" in case.text:
        assert [output.shape for output in names["model"].outputs] == [(None, 128, 128, 1)] * 2
    if "FastModel" in case.text:
        assert (project / "model.keras").exists()
    if "open_run" in case.text:
        assert names["probabilities"].shape == (32, 32, 19) and (project / "photo.png").exists()
    if "ids = logits" in case.text:
        assert names["ids"].shape == (32, 32)
    if "tifffile" in case.text:
        assert names["photo"].shape == (48, 64, 4) and names["photo"].min() >= 100
    if "load_model" in case.text:
        assert isinstance(names["model"], keras.Model)
    if "open_dataset" in case.text:
        assert names["colors"].shape == (128, 128, 3)


# -------------------------------------------------------------------------------------------------- bash blocks


BACKENDS = ("torch", "tensorflow", "jax")
OTHER_PACKAGES = {"jupyterlab", "kagglehub"}  # which users may want, and no test needs
PARSED_ALONE = {  # commands that are not run here, by a word in them
    "train": "trains for minutes",
    "serve": "runs until Ctrl-C; tests/test_serve.py asks its addresses",
    "--models": "trains for minutes",
    "--int8": "calibrates; tests/test_export.py does it",
    "camera": "there is none",
    "--ray": "starts a cluster; tests/test_ray.py does it",
    "--threshold": "is for two classes, and the run has more; tests/test_certainty.py does it",
}


def without_settings(words: list[str]) -> list[str]:
    """The command without the variables that are set in front of it."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        name, value = words[0].split("=")
        assert name in JAX_VARIABLES or (name == "KERAS_BACKEND" and value in BACKENDS)
        words = words[1:]
    return words


def check_pip(words: list[str]) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = (REPOSITORY / "tests" / "requirements.txt").read_text(encoding="utf-8")
    if words[0] == "-r":
        assert (REPOSITORY / words[1]).exists() and len(words) == 2
        return
    for word in words:
        here = re.fullmatch(r"\.\[(.*)\]", word)
        if here:
            assert here[1] in project["optional-dependencies"]
        else:
            assert word in OTHER_PACKAGES or re.search(rf"^{re.escape(word)}\b", known, re.MULTILINE), word


def check_benchmark(words: list[str]) -> None:
    source = (REPOSITORY / words[0]).read_text(encoding="utf-8")
    assert all(f'"{word}"' in source for word in words if word.startswith("--"))


def check_module(words: list[str]) -> None:
    module, *rest = words
    known = "".join((REPOSITORY / name / "requirements.txt").read_text() for name in ("tests", "docs"))
    assert importlib.util.find_spec(module) or re.search(rf"^{module}\b", known, re.MULTILINE)
    assert module != "sphinx" or (REPOSITORY / rest[-2] / "conf.py").exists()


def check_docker(words: list[str]) -> None:
    if words[0] == "compose":
        assert f"profiles: [{words[2]}]" in (REPOSITORY / "compose.yaml").read_text(encoding="utf-8")
        return
    assert words[0] in ("build", "run") and (REPOSITORY / "Dockerfile").exists()
    if words[0] == "run":
        parse(words[words.index("semseg") + 1 :])


def check_curl(words: list[str]) -> None:
    (address,) = [word for word in words if re.match(r"http://[\d.]+:8000/", word)]
    route = re.sub(r"/\d+/", "/{number}/", "/" + address.split("/", 3)[3])
    sources = "".join(path.read_text(encoding="utf-8") for path in (PACKAGE / "serve").glob("*.py"))
    assert f'Route("{route}", ' in sources
    assert parser_of("serve").get_default("port") == 8000


def check_openssl(words: list[str]) -> None:
    assert words == ["rand", "-hex", "32", ">", "token"]


def check_logdir(words: list[str]) -> None:
    assert words == ["--logdir", "outputs/tensorboard"]


def check_jupyter(words: list[str]) -> None:
    assert words[0] == "lab" and (REPOSITORY / words[1]).is_dir()


CHECKS = {  # by the words that a command starts with
    ("python", "main.py"): lambda words: parse(["main.py", *words]),
    ("python", "-m", "semseg"): parse,
    ("python", "-m"): check_module,
    ("python",): check_benchmark,
    ("pip", "install"): check_pip,
    ("docker",): check_docker,
    ("torchrun",): lambda words: parse(words[words.index("semseg") + 1 :]),
    ("srun",): lambda words: parse(words[words.index("semseg") + 1 :]),
    ("curl",): check_curl,
    ("openssl",): check_openssl,
    ("tensorboard",): check_logdir,
    ("jupyter",): check_jupyter,
    ("export",): lambda words: without_settings(words),
}
COMMANDS = [(block, words) for block in BLOCKS if block.language == "bash" for words in commands(block.text)]


def name_of(case: tuple[Block, list[str]]) -> str:
    return f"{case[0]} {' '.join(case[1])}"


@each(COMMANDS, name_of)
@pytest.mark.plain
def test_a_command_is_known_and_its_arguments_are_understood(case):
    words = without_settings(case[1])
    if not words:
        return
    (start,) = sorted((start for start in CHECKS if tuple(words[: len(start)]) == start), key=len)[-1:]
    CHECKS[start](words[len(start) :])


def cheap_commands() -> list[tuple[Block, list[str]]]:
    """Commands of the program that are run for real, each once."""
    found = {}
    for block, words in COMMANDS:
        words = without_settings(words)
        if words[:3] == ["python", "-m", "semseg"] and not PARSED_ALONE.keys() & set(words):
            found.setdefault(tuple(words[3:]), (block, words))
    return list(found.values())


@each(cheap_commands(), name_of)
@pytest.mark.plain
def test_a_cheap_command_does_what_it_says(case, project, monkeypatch):
    monkeypatch.chdir(project)
    assert cli.commands(case[1][3:]) == 0


@pytest.mark.plain
def test_every_command_is_run_somewhere_and_every_reason_not_to_is_needed():
    run = {case[1][3] for case in cheap_commands()}
    assert run == {"check", "evaluate", "predict", "report", "export", "compare", "plan", "convert", "suggest"}
    words = {word for _, words in COMMANDS for word in words}
    assert PARSED_ALONE.keys() <= words


# ------------------------------------------------------------------------------------------------- other blocks


def draw_tree(text: str, root: Path) -> None:
    """Makes the files of a tree: photos, masks, or pairs where photos and masks have no folder of their own."""
    pairs = "mask" not in text.lower() and "gtFine" not in text
    folders = []
    for i, line in enumerate(text.splitlines()):
        depth, name = (len(line) - len(line.lstrip())) // 2, line.strip()
        folders[depth:] = [name]
        path = root.joinpath(*folders)
        if name.endswith("/"):
            path.mkdir()
        elif pairs:
            save_pair(path, i, size=128, quality=95)
        elif "gtFine" in name or "mask" in str(path.relative_to(root)):
            numbers = draw_numbers(i)
            Image.fromarray((numbers == 3) * np.uint8(255) if "_mask" in name else numbers).save(path)
        else:
            Image.fromarray(draw_pair(i)[0]).save(path)


def check_tree(text: str, root: Path) -> None:
    draw_tree(text, root)
    dataset = semseg.open_dataset(root / "my_data")
    assert {"train", "val"} <= dataset.splits.keys()
    files = len(re.findall(r"\.(?:jpg|png|gif)$", text, re.MULTILINE))
    assert len(dataset.samples) == (files if "read as pairs" in dataset.notes[0] else files // 2)


def check_diagram(text: str, root: Path) -> None:
    named = re.findall(r"--([\w, ]+)-->", text)
    rooms = {room.strip() for part in named for room in part.split(",")} - {"model"}
    assert rooms and all((PACKAGE / room).is_dir() for room in rooms)


def check_error_line(text: str, root: Path) -> None:
    sentence = text.split(": ", 2)[2].strip()
    sources = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    assert all(part in sources for part in sentence.split("; "))


@pytest.mark.plain
@each(of_language("text"), str)
def test_a_block_of_text_is_a_tree_that_opens_a_diagram_of_rooms_or_an_error_that_exists(case, tmp_path):
    kinds = {"my_data/\n": check_tree, "files --": check_diagram, "error: ": check_error_line}
    (check,) = [check for start, check in kinds.items() if case.text.startswith(start)]
    check(case.text, tmp_path)


@pytest.mark.plain
@each(of_language("json"), str)
def test_a_block_of_json_is_read_by_the_program(case):
    values = json.loads(case.text)
    if "classes" in values:
        assert Palette.from_dict(values).num_classes == len(values["classes"])
    else:
        assert RunConfig.from_dict(values) == RunConfig(data="my_data")


@pytest.mark.plain
def test_every_block_is_of_a_kind_that_is_tried():
    kinds = {"python", "bash", "text", "json", *DIRECTIVES}
    assert [str(block) for block in BLOCKS if block.language not in kinds] == []
    fences = sum(page.read_text(encoding="utf-8").count("```") for page in PAGES)
    assert fences == 2 * len(BLOCKS)


@pytest.mark.plain
def test_the_job_of_kubernetes_asks_for_as_many_parts_as_pods():
    page = read("kubernetes.md")
    job = yaml.safe_load(textwrap.dedent(page[page.index("    apiVersion") : page.index("Push the image")]))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (rule,) = job["spec"]["podFailurePolicy"]["rules"]
    assert container["env"] == [{"name": "JOB_COMPLETIONS", "value": str(job["spec"]["completions"])}]
    assert parse(container["args"]).shard == "auto" and rule["onExitCodes"]["containerName"] == container["name"]


# ------------------------------------------------------------------------------------------------------- tables


@pytest.mark.plain
def test_the_tables_of_flags_name_every_flag_of_a_run_with_its_default():
    defaults = RunConfig()
    for name in RunConfig.__dataclass_fields__:
        (row,) = rows(read("training.md").split("## All flags")[1], f"| `--{name.replace('_', '-')}")[:1]
        default = getattr(defaults, name)
        shown = {"classes": "found", "limit": "all", "backend": "KERAS"}
        assert shown.get(name, str(default)) in row[1], row


@pytest.mark.plain
@pytest.mark.parametrize(
    ("command", "page"),
    [("train", "training"), ("plan", "training"), ("check", "your-data"), ("convert", "your-data"),
     ("evaluate", "judging"), ("predict", "predicting"), ("export", "exporting"), ("serve", "serving"),
     ("compare", "comparing"), ("report", "judging"), ("suggest", "suggesting")],
)  # fmt: skip
def test_every_flag_of_a_command_stands_on_its_page_or_with_those_of_training(command, page):
    text = read(f"{page}.md") + read("training.md")
    for action in parser_of(command)._actions:
        for flag in action.option_strings:
            names = (flag, flag.replace("--no-", "--"))  # the opposite of a switch stands with it
            assert flag in ("-h", "--help") or any(re.search(rf"`{name}[ `]", text) for name in names), flag


@pytest.mark.plain
def test_no_page_names_a_flag_that_does_not_exist():
    known, every = set(), "train plan check convert evaluate predict export serve compare report suggest"
    for command in every.split():
        known |= {flag for action in parser_of(command)._actions for flag in action.option_strings}
    known |= {"--quick", "--run", "--version"}
    for page in PAGES:
        prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for code in re.findall(r"`([^`]+)`", prose):
            named = set(re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", code))
            assert named <= known | {"--user", "--plot", "--ablation", "--results"}, (page.name, named - known)


@pytest.mark.plain
def test_the_table_of_networks_names_every_network_with_what_it_costs():
    from semseg.architectures import ARCHITECTURES, build_model
    from semseg.architectures.cost import count_flops

    for name in ARCHITECTURES:
        options = {"encoder_weights": "none"} if name == "encoder_unet" else {}
        model = build_model(name, (128, 128, 3), 19, filters=16, **options)
        costs = ", ".join(f"{n:.2f}".removeprefix("0") for n in (model.count_params() / 1e6, count_flops(model) / 1e9))
        (row,) = rows(read("training.md"), f"| `{name}` | ")
        assert row[-1] == costs, (row, costs)


@pytest.mark.plain
def test_architecture_has_a_line_for_every_file_and_for_none_that_is_not_there():
    text = read("architecture.md").split("### Directly in")[1].split("## What it stands on")[0]
    named = {name for row in rows(text, "| `") for name in re.findall(r"`([^`]+)`", row[0])}
    there = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    assert there - named == set(), "without a line in docs/architecture.md"
    assert [name for name in named if not (PACKAGE / name).exists()] == []
    beside = read("architecture.md").split("### Beside")[1].split("### Directly")[0]
    assert all((REPOSITORY / name).exists() for row in rows(beside, "| `") for name in re.findall(r"`([^`]+)`", row[0]))


@pytest.mark.plain
def test_what_it_stands_on_names_every_package_that_is_installed():
    text = read("architecture.md").split("## What it stands on")[1]
    named = {name.strip() for row in rows(text, "| ")[2:] for name in row[0].split(",")}
    for folder in (".", "tests", "docs"):
        for line in (REPOSITORY / folder / "requirements.txt").read_text(encoding="utf-8").splitlines():
            name = re.match(r"[\w.-]*", line)[0]
            assert not name or name.startswith("-") or name in named, f"{name} of {folder}/requirements.txt"


@pytest.mark.plain
def test_the_api_has_every_public_name_once():
    pages = "".join(path.read_text(encoding="utf-8") for path in sorted((DOCS / "api").glob("*.md")))
    named = re.findall(r"^\.\. (?:autofunction|autoclass|py:data):: (\w+)$", pages, re.MULTILINE)
    assert sorted(named) == sorted(semseg.__all__)


@pytest.mark.plain
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_link_leads_somewhere(page):
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.plain
def test_every_exit_code_stands_in_the_table():
    from semseg import errors

    kinds = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, ValueError)]
    codes = {kind.exit_code for kind in kinds}
    named = {int(row[0]) for row in rows(read("reliability.md"), "| ") if row[0].isdigit()}
    assert codes | {0, 75, 129, 130, 143} == named


def test_the_tests_that_the_page_on_faults_names_are_there():
    named = re.findall(r"`(test_\w+)::(\w+)`", (DOCS / "reliability.md").read_text("utf-8"))
    assert len(named) > 80
    for file, name in named:
        text = (DOCS.parent / "tests" / f"{file}.py").read_text("utf-8")
        assert re.search(rf"^ *(def|class) {name}\b", text, re.MULTILINE), f"{file}::{name}"
