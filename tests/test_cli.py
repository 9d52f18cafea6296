import csv
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import IMPORT_KERAS, REPOSITORY, draw_pair, make_pairs, save_pair
from PIL import Image

import semseg.cli.predict
from semseg import cli
from semseg.cli import commands, main
from semseg.cli.backends import choose_backend
from semseg.cli.console import in_flags, name_flags
from semseg.cli.flags import asked_run, build_parser, training_parser
from semseg.data.base import Dataset
from semseg.errors import SemsegError, pip_install
from semseg.files import write_json
from semseg.images.reading import read_image
from semseg.runs.config import RunConfig
from semseg.runs.run import Run

SMALL = ["--image-size", "32", "--filters", "4", "--learning-rate", "0.01"]
WRITTEN = {
    "acc.png", "cityscapes.json", "classes.json", "config.json", "confusion_matrix.csv", "confusion_matrix.png",
    "metrics.json", "model_arch.png", "per_class.csv", "per_image.csv", "photos.npz", "pred_1.png", "pred_2.png",
    "pred_3.png", "pred_4.png", "report", "report.html", "results.csv", "splits.csv", "tensorboard", "train_batch.png",
    "unet_model.keras",
}  # fmt: skip


def as_flags(text):
    """With each parameter in backquotes as its flag."""
    return re.sub(r"`(\w+)`", lambda match: f"--{match[1].replace('_', '-')}", text)


def run_main(*arguments, cwd):
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "main.py"), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


WATCH_IMPORTS = """
import os, sys
from semseg.cli import commands

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "keras":
            raise SystemExit(os.environ.get("KERAS_BACKEND", "none"))

sys.meta_path.insert(0, Watch())
for command in sys.argv[1:]:
    try:
        print(command, commands(command.split(",")))
    except SystemExit as end:
        print(command, end)
    os.environ.pop("KERAS_BACKEND", None)
"""


@pytest.mark.plain
def test_every_command_chooses_its_backend_before_keras_is_imported(tmp_path):
    (tmp_path / "x.keras").touch()
    (tmp_path / "x.png").touch()
    calls = ["train,--data,x", "evaluate,x.keras", "export,x.keras,--format,onnx", "predict,x.keras,x.png",
             "serve,x.keras", "compare,--models,unet"]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", WATCH_IMPORTS, *calls],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    ends = [line.rpartition(" ")[2] for line in done.stdout.splitlines()]
    assert set(ends) == {"torch"}, done.stdout


@pytest.fixture(scope="module")
def finished(pairs, tmp_path_factory):
    """A finished run of two epochs: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("run")
    done = run_main("--data", str(pairs), "--epochs", "2", *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "outputs", done


class TestARun:
    def test_writes_every_file_and_nothing_else(self, finished):
        assert {path.name for path in finished[0].iterdir()} - {"model_arch_layers.png"} == WRITTEN

    def test_says_what_it_found_and_how_good_it_became(self, finished):
        text = finished[1].stdout
        for part in ("12 train, 4 val photos of 32x32 pixels", "classes   19, multiclass, official Cityscapes labels",
                     "road ", "unet, 4 filters, ", "1/2", "2/2", "sensitivity", "macro", "micro", "pred_1.png",
                     keras.backend.backend()):  # fmt: skip
            assert part in text, part
        assert "\x1b" not in text and "\r" not in text

    def test_says_nothing_on_the_error_stream(self, finished):
        if keras.backend.backend() != "tensorflow":  # which prints start-up notes of its own
            assert finished[1].stderr == ""

    def test_the_pictures_are_pictures(self, finished):
        for path in finished[0].glob("*.png"):
            assert read_image(path).std() > 5, path

    def test_metrics_agree_with_the_saved_model(self, finished, dataset):
        from semseg.backend.predictor import predictor
        from semseg.evaluation.evaluate import evaluate_split

        model = keras.saving.load_model(finished[0] / "unet_model.keras", safe_mode=True)
        found = evaluate_split(predictor(model), dataset, image_size=(32, 32)).scores
        saved = json.loads((finished[0] / "metrics.json").read_text())
        assert saved["accuracy"] == pytest.approx(found["accuracy"], abs=1e-3)
        assert saved["macro_iou"] == pytest.approx(found["macro_iou"], abs=1e-3)
        assert saved["per_class"]["train"]["iou"] is None
        assert saved["split"] == "val"

    def test_classes_and_configuration_are_written_down(self, finished):
        classes = json.loads((finished[0] / "classes.json").read_text())
        assert classes["classes"][13]["name"] == "car"
        assert sum(entry["share"] for entry in classes["classes"]) == pytest.approx(1, abs=1e-4)
        config = json.loads((finished[0] / "config.json").read_text())
        assert config["training"]["epochs"] == 2 and config["speed"]["backend"] == keras.backend.backend()
        assert config["facts"]["samples"] == {"train": 12, "val": 4}

    def test_what_was_decided_is_said_and_written_down_with_its_reason(self, finished):
        config = json.loads((finished[0] / "config.json").read_text())
        decided = config["plan"]["batches"]["batch_size"]
        assert config["training"]["batch_size"] is None and decided["value"] == 1
        assert decided["reason"].startswith("batches of 4 would give only 6 steps, and short runs learn more")
        said = " ".join(finished[1].stdout.split())
        for decisions in config["plan"].values():
            for decision in decisions.values():
                assert as_flags(" ".join(decision["reason"].split())) in said, decision

    @pytest.mark.plain
    def test_a_second_run_moves_the_first_and_leaves_other_files(self, finished, pairs, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        outputs = tmp_path / "outputs"
        shutil.copytree(finished[0], outputs)
        for name in ("my notes.txt", "pred_final.png", "my_model.keras"):
            (outputs / name).write_text("mine")
        assert main(["--data", str(pairs), "--epochs", "1", *SMALL]) == 0
        (archived,) = (outputs / "archive").iterdir()
        assert {path.name for path in archived.iterdir()} >= WRITTEN
        assert len(list((outputs / "tensorboard").iterdir())) == 1
        assert (archived / "results.csv").read_text() == (finished[0] / "results.csv").read_text()
        for name in ("my notes.txt", "pred_final.png", "my_model.keras"):
            assert (outputs / name).read_text() == "mine"
        assert f"moved the files of the run before to outputs/archive/{archived.name}" in capsys.readouterr().out


def without_times(path):
    """The rows of results.csv without what the clock says."""
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in ("seconds", "waiting")} for row in csv.DictReader(file)]


class TestConfigurationFiles:
    @pytest.mark.plain
    def test_one_repeats_its_run(self, finished, tmp_path):
        again = ["--config", str(finished[0] / "config.json"), "--output", str(tmp_path / "again")]
        assert main(again) == 0
        assert without_times(tmp_path / "again" / "results.csv") == without_times(finished[0] / "results.csv")
        for name in ("classes.json", "confusion_matrix.csv", "splits.csv"):
            assert (tmp_path / "again" / name).read_text() == (finished[0] / name).read_text()

    @pytest.mark.plain
    def test_flags_beside_it_change_it(self, finished):
        flags = ["--config", str(finished[0] / "config.json"), "--epochs", "7", "--no-remat", "--image-size", "48"]
        asked = asked_run(training_parser().parse_args(flags))
        assert asked == replace(Run(finished[0]).config, epochs=7, image_size=(48, 48))

    @pytest.mark.plain
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"format": 9}, "config.json: is of form 9, and this version of semseg reads up to 2"),
            ({"training": {"epochz": 3}}, "config.json: there is no setting 'epochz'; expected accumulate"),
            ({"speed": {"precision": "half"}}, "config.json: --precision: got 'half'; expected one of float32"),
        ],
    )
    def test_one_of_another_version_or_with_unknown_settings_is_named(
        self, finished, tmp_path, capsys, monkeypatch, change, said
    ):
        monkeypatch.chdir(tmp_path)
        values = json.loads((finished[0] / "config.json").read_text())
        Path("config.json").write_text(json.dumps({**values, **change}))
        assert main(["--config", "config.json"]) == 4
        assert capsys.readouterr().err.startswith(f"error: {said}")
        assert [path.name for path in tmp_path.iterdir()] == ["config.json"]

    @pytest.mark.plain
    def test_its_backend_is_taken_unless_a_flag_names_another(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        other = "jax" if keras.backend.backend() != "jax" else "torch"
        write_json(Path("config.json"), RunConfig(backend=other).to_dict())
        assert main(["--config", "config.json"]) == 2
        assert f"Keras runs on {keras.backend.backend()} already; choose {other} before" in capsys.readouterr().err


@pytest.mark.plain
class TestPlanCommand:
    def test_it_says_what_a_run_would_do_and_writes_nothing(self, pairs, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert commands(["plan", str(pairs), *SMALL, "--cache", "none"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        for part in (
            "12 train, 4 val photos of 32x32 pixels", "official Cityscapes labels", "final split: val - there is no",
            "image size: 32x32 pixels - as asked; photos of 32x32 are seen as they are",
            "batch size: 1 - batches of 4 would give only 30 steps", "learning rate: 0.01", "optimizer: Muon",
        ):  # fmt: skip
            assert part in text, part
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("flags", "said"),
        [(["--model", "vnet"], "no network 'vnet'"), (["--image-size", "33"], "height 33"),
         (["--model", "unet", "--encoder", "ResNet50"], "--encoder: got ResNet50, but unet has no encoder")],
    )  # fmt: skip
    def test_it_refuses_a_network_that_training_would_refuse(self, pairs, capsys, flags, said):
        assert commands(["plan", str(pairs), "--cache", "none", *flags]) == 2
        assert said in capsys.readouterr().err

    def test_it_refuses_what_training_would_refuse(self, pairs, capsys):
        assert commands(["plan", str(pairs), "--loss", "bce", "--cache", "none"]) == 2
        assert "--loss: binary_cross_entropy is for 2 classes" in capsys.readouterr().err
        assert commands(["plan", "nowhere"]) == 3


@pytest.mark.plain
def test_a_file_for_config_that_is_not_there_is_told(capsys):
    assert main(["--config", "nope.json"]) == 4
    assert capsys.readouterr().err == "error: --config: got 'nope.json'; expected a file such as outputs/config.json\n"


@pytest.mark.plain
def test_only_parameters_become_flags_and_paths_stay():
    name_flags({"data": "--data"})
    assert in_flags("`data`: /x/`data`/a.png is no photo, see `plan_run`") == (
        "--data: /x/`data`/a.png is no photo, see plan_run"
    )


@pytest.mark.plain
def test_help_is_grouped_by_the_sections_of_the_configuration():
    text = training_parser().format_help()
    places = [text.index(f"\n{title}:\n") for title in ("data", "network", "training", "speed and memory", "output")]
    assert places == sorted(places)
    for name in RunConfig.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for a child process there")
def test_ctrl_c_ends_training_with_one_line_and_keeps_the_best_weights(pairs, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-u", str(REPOSITORY / "main.py"), "--data", str(pairs), *SMALL, "--epochs", "100000"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert any("2/100000" in line for line in running.stdout)
        running.send_signal(signal.SIGINT)
        errors = running.communicate(timeout=60)[1]
    assert running.returncode == 130
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert re.fullmatch(
        "error: stopped by Ctrl-C; the state at .* is in outputs/checkpoints: the same command goes on from there", line
    )
    keras.saving.load_model(tmp_path / "outputs" / "unet_model.keras")


@pytest.mark.plain
@pytest.mark.skipif(os.name == "nt", reason="no such signals there")
@pytest.mark.parametrize("command", ["check x", "plan x", "predict m x", "evaluate m", "report r", "compare a b"])
def test_a_signal_ends_every_command_with_its_code(command, monkeypatch, capsys):
    def work(arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr(cli, "_import_and_run", work)
    assert commands(command.split()) == 143
    kept = "; what was finished before is in the output folder" if command.startswith("compare") else ""
    assert capsys.readouterr().err == f"error: stopped by SIGTERM{kept}\n"


@pytest.mark.plain
def test_without_data_the_demo_set_is_made_and_trained_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def quick(pair):
        path, (_, number, n) = pair
        save_pair(path, 1000 * number + n, quality=95)

    monkeypatch.setattr("semseg.data.demo._write_pair", quick)  # its own scenes are for test_demo.py
    assert main(["--epochs", "1", "--limit", "8", *SMALL]) == 0
    assert "drew the demo set" in capsys.readouterr().out
    assert len(list((tmp_path / "images" / "train").iterdir())) == 200
    assert len(list((tmp_path / "images" / "val").iterdir())) == 50
    assert (tmp_path / "outputs" / "pred_8.png").exists()


@pytest.mark.plain
@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "cityscapes_pairs",
            ("6 train, 6 val", "19, multiclass, official Cityscapes labels, blended borders repaired"),
        ),
        ("camvid", ("6 train, 6 val", "11, multiclass, CamVid's")),
        ("carvana", ("6 train, 6 val", "2, binary", "so that none is on both sides", "car")),
        ("nuclei", ("6 train, 6 val", "2, binary, the numbers that the masks hold")),
    ],
)
def test_the_real_sets_train(real_data, tmp_path, capsys, name, said):
    arguments = ["--limit", "6", "--epochs", "1", "--image-size", "64", "--filters", "4", "--cache", "none"]
    assert main(["--data", str(real_data / name), "--output", str(tmp_path), *arguments]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in said:
        assert part in text, text


@pytest.mark.plain
def test_the_flags_for_rare_classes_augmentation_and_categories(pairs, tmp_path, capsys):
    arguments = ["--sample-rare", "--class-weights", "inverse", "--augment", "scale=1:1.5", "--categories"]
    assert main(["--data", str(pairs), "--output", str(tmp_path), "--epochs", "1", *SMALL, *arguments]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "7, multiclass" in text and "zoomed by 1 to 1.5" in text
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["training"]["sample_rare"] is True and config["training"]["class_weights"] == "inverse"


@pytest.mark.plain
def test_a_second_run_decodes_nothing_while_it_trains(pairs, tmp_path, monkeypatch):
    arguments = ["--data", str(pairs), *SMALL, "--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "out")]
    monkeypatch.setattr("semseg.cli.train._finish", lambda *_: None)  # judges at the files' own size
    assert main([*arguments, "--epochs", "1"]) == 0
    first = (tmp_path / "out" / "results.csv").read_text()
    asked = []
    inspect = Dataset.inspect
    monkeypatch.setattr(Dataset, "inspect", lambda self, *rest: asked.append(rest) or inspect(self, *rest))
    assert main([*arguments, "--epochs", "1"]) == 0
    assert not asked
    losses = [text.splitlines()[1].split(",")[1] for text in (first, (tmp_path / "out" / "results.csv").read_text())]
    assert losses[0] == losses[1]


class TestBadInput:
    """Each gives one line with where, what and the mend, the right exit code, and leaves no file behind."""

    @pytest.fixture()
    def fails(self, capsys, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        def check(code, *parts, arguments, output="outputs"):
            before = sorted(tmp_path.rglob("*"))
            assert main([*SMALL, "--epochs", "1", "--output", output, *arguments]) == code
            error = capsys.readouterr().err
            assert error.startswith("error: ") and error.count("\n") == 1, error
            for part in parts:
                assert part in error, error
            assert sorted(tmp_path.rglob("*")) == before

        return check

    def test_no_such_folder(self, fails):
        fails(3, "nowhere: no such file or folder", "--data", arguments=["--data", "nowhere"])

    def test_no_pairs_in_it(self, fails, tmp_path):
        (tmp_path / "empty").mkdir()
        fails(
            3,
            "empty: holds no photos with masks or outlines; expected",
            "photo | colour mask",
            arguments=["--data", "empty"],
        )

    def test_files_that_are_no_pictures(self, fails, tmp_path):
        make_pairs(tmp_path / "d", train=3, val=2)
        (tmp_path / "d" / "train" / "2.png").write_text("x")
        (tmp_path / "d" / "val" / "1.png").write_text("x")
        fails(3, "2 of 5 files", "d/train/2.png: not a picture", "d/val/1.png", "remove", arguments=["--data", "d"])

    def test_an_odd_width(self, fails, tmp_path):
        make_pairs(tmp_path / "d", train=3, val=2)
        Image.new("RGB", (63, 32)).save(tmp_path / "d" / "train" / "1.png")
        fails(3, "d/train/1.png: is 63x32 pixels, an odd width", "mend", arguments=["--data", "d"])

    def test_other_colours_in_val(self, fails, tmp_path):
        make_pairs(tmp_path / "d", train=4, val=1)
        photo, mask = draw_pair(500)
        Image.fromarray(np.concatenate([photo, 255 - mask // 3], axis=1)).save(tmp_path / "d" / "val" / "1.png")
        fails(3, "d/val/1.png: 100% of the pixels in the val masks", "colours of train/", arguments=["--data", "d"])

    def test_an_image_size_that_does_not_fit(self, fails, pairs):
        fails(2, "height 100", "multiple of 16; use 96 or 112", arguments=["--data", str(pairs), "--image-size", "100"])

    def test_a_wrong_flag_is_told_before_the_demo_is_drawn(self, fails):
        fails(2, "height 100", arguments=["--image-size", "100"])
        fails(2, "no loss 'mse'", arguments=["--loss", "mse"])

    def test_one_class(self, fails, pairs):
        fails(2, "--classes: got 1; expected", "at least 2", arguments=["--data", str(pairs), "--classes", "1"])

    def test_more_classes_than_colours(self, fails, pairs):
        fails(
            3,
            "hold 5 clearly different colours, fewer than the 30",
            arguments=["--data", str(pairs), "--classes", "30"],
        )

    def test_settings_that_make_no_sense(self, fails, pairs):
        data = ["--data", str(pairs)]
        fails(2, "got 'turn=3'; expected none, or name=value", arguments=["--augment", "turn=3"])
        fails(
            2, "--class-weights: got 'rare'; expected none, inverse, effective", arguments=["--class-weights", "rare"]
        )
        fails(2, "there is no data set 'camvid'; choose one of", arguments=[*data, "--dataset", "camvid"])
        fails(2, "'mine.json'; expected a number, or a classes.json", arguments=[*data, "--classes", "mine.json"])

    def test_a_text_file_is_no_archive(self, fails, tmp_path):
        (tmp_path / "data.zip").write_text("x")
        fails(3, "data.zip: neither a folder nor a whole zip or tar", arguments=["--data", "data.zip"])

    def test_an_unknown_network_and_loss_list_the_known(self, fails, pairs):
        fails(2, "no network 'vnet'; choose one of unet", arguments=["--data", str(pairs), "--model", "vnet"])
        fails(2, "no loss 'mse'; choose from cross_entropy", arguments=["--data", str(pairs), "--loss", "mse"])

    def test_a_file_where_the_output_folder_should_be(self, fails, pairs, tmp_path):
        (tmp_path / "taken").write_text("mine")
        fails(
            4, "taken: cannot be written", "choose another --output", arguments=["--data", str(pairs)], output="taken"
        )
        assert (tmp_path / "taken").read_text() == "mine"

    @pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that not even root can write to")
    def test_a_read_only_output_folder(self, fails, pairs):
        fails(4, "/proc/here: cannot be written", arguments=["--data", str(pairs)], output="/proc/here")

    def test_a_full_disk_is_refused_before_anything_is_read(self, fails, monkeypatch):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 5 * 2**20))
        fails(6, "outputs: 5 MB left on the disk, 100 MB needed", arguments=["--data", "nowhere"])

    def test_an_unknown_backend(self, fails):
        fails(2, "--backend: there is no backend 'torhc'; choose one of torch", arguments=["--backend", "torhc"])

    @pytest.mark.plain
    def test_a_loss_that_explodes_stops_with_its_own_code(self, pairs, tmp_path, capsys):
        arguments = ["--data", str(pairs), *SMALL, "--learning-rate", "1e30", "--epochs", "2"]
        assert main([*arguments, "--output", str(tmp_path / "out")]) == 7
        assert "Use a smaller --learning-rate" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--epochs", "x"], ["--image-size", "12x"], ["--no-such-flag"], [""]])
def test_wrong_usage_ends_with_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.endswith("; see --help\n") and error.count("\n") == 1


def test_a_command_that_is_given_to_main_py_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["check", "photos", "--skip-bad"])
    error = capsys.readouterr().err
    assert error == "error: main.py has no commands; run python -m semseg check photos; see --help\n"


@pytest.mark.plain
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "--data", "photos"], "--data; DIR is given by itself here, without --data; see --help"),
        (["train", "--image", "64"], "--image 64; did you mean --image-size? See --help"),
        (["train", "--epoch=3"], "--epoch=3; did you mean --epochs? See --help"),
        (["evaluate", "outputs", "--flip", "yes"], "--flip yes; did you mean --flips? See --help"),
        (["check", "photos", "more"], "more; see --help"),
    ],
)
def test_no_flag_is_taken_for_another_that_begins_like_it(arguments, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        build_parser().parse_args(arguments)
    assert capsys.readouterr().err == f"error: unrecognized arguments: {said}\n"


@pytest.mark.plain
@pytest.mark.skipif(os.name == "nt", reason="no such pipe there")
def test_work_goes_on_when_the_reader_of_its_output_has_gone(pairs, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "semseg", "check", str(pairs), "--output", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=writer, stderr=subprocess.PIPE, text=True,
        check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "data.json").exists()


SMALL_DISK = """
import resource, runpy, sys
limit = 60_000  # bytes in one file: enough for the JSON files, too little for a picture
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.plain
def test_a_disk_that_fills_up_in_the_middle_leaves_no_part_of_a_file(pairs, tmp_path):
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-B", "-c", SMALL_DISK, str(REPOSITORY / "main.py"), "--data", str(pairs), *SMALL],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "MPLCONFIGDIR": str(tmp_path / "matplotlib")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 6, done.stderr
    assert "no space left; free some or choose another --output" in done.stderr.splitlines()[-1]
    left = {path.name for path in (tmp_path / "outputs").iterdir()}
    assert left <= {"classes.json", "config.json", "splits.csv", "tensorboard"}


class TestChoosingTheBackend:
    def test_a_backend_that_is_not_installed_names_the_mend(self, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "jax" else object())
        with pytest.raises(
            SemsegError, match=re.escape(f"`backend`: jax is not installed; run {pip_install('jax')}, or use torch or")
        ):
            choose_backend("jax")

    def test_the_environment_is_named_when_it_is_wrong(self, monkeypatch):
        monkeypatch.setenv("KERAS_BACKEND", "tensorflo")
        with pytest.raises(SemsegError, match="KERAS_BACKEND: there is no backend 'tensorflo'"):
            choose_backend(None)

    def test_another_backend_than_the_running_one_is_refused(self, monkeypatch):
        monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
        other = "torch" if keras.backend.backend() != "torch" else "jax"
        with pytest.raises(SemsegError, match=f"Keras runs on {keras.backend.backend()} already"):
            choose_backend(other)
        assert choose_backend(None) == keras.backend.backend()


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "semseg", "train", "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert "--image-size" in done.stdout


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="Keras compiles on the other backends, without a compiler"
)
def test_without_a_compiler_training_goes_on_uncompiled(pairs, tmp_path):
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "main.py"), "--data", str(pairs), "--epochs", "1", "--compile", *SMALL],
        cwd=tmp_path,
        env={**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("compile ")]
    assert "does not work here (" in line and "no-such-compiler" in done.stdout
    assert (tmp_path / "outputs" / "unet_model.keras").exists()


LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from semseg import cli
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + int(sys.argv[1]),) * 2)
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="TensorFlow and XLA abort where the address space ends")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_too_little_memory_ends_in_one_line_with_what_to_change(pairs, tmp_path):
    flags = ["--data", str(pairs), "--epochs", "1", "--image-size", "512", "--filters", "64", "--batch-size", "12"]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_KERAS + LITTLE_MEMORY, str(2 * 10**9), *flags],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 6, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: out of memory: --batch-size 12 with photos of 512x512")
    assert "use " in line


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")],
    ids=lambda x: type(x).__name__,
)
def test_memory_that_ends_while_predicting_ends_in_one_line(error, monkeypatch, capsys):
    def predict(arguments):
        raise error

    monkeypatch.setattr(semseg.cli.predict, "run", predict)
    assert commands(["predict", "outputs", "photo.jpg"]) == 6
    assert capsys.readouterr().err.splitlines() == [
        "error: out of memory; use a smaller --batch-size, --image-size or --filters"
    ]


def test_any_other_error_keeps_its_traceback(monkeypatch):
    def predict(arguments):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(semseg.cli.predict, "run", predict)
    with pytest.raises(RuntimeError, match="shapes differ"):
        commands(["predict", "outputs", "photo.jpg"])


def run_in_shell(line, *arguments):
    """The exit code and what stands in stderr of a command in bash, `$@` in it being Python and the package."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = ["bash", "-c", line, "bash", sys.executable, "-m", "semseg", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.plain
@pytest.mark.skipif(os.name == "nt", reason="needs bash")
class TestFewResources:
    @pytest.mark.parametrize("closed", [">&-", ">&- 2>&- <&-"])
    def test_closed_streams_hold_nothing_up(self, pairs, tmp_path, closed):
        assert run_in_shell(f'"$@" {closed}', "check", pairs, "--output", tmp_path / "out") == (0, "")
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"classes.json", "data.json", "data.png"}

    def test_few_open_files_are_enough(self, pairs, tmp_path):
        assert run_in_shell('ulimit -n 40; "$@"', "check", pairs, "--output", tmp_path / "out") == (0, "")

    @pytest.mark.parametrize(
        ("error", "line"),
        [
            (RuntimeError("can't start new thread"), "error: system: no more threads; use fewer --workers"),
            (OSError(errno.EAGAIN, "no more processes"), "error: system: no more processes; use fewer --workers"),
            (OSError(errno.EMFILE, "too many", "x.png"), "error: x.png: too many; allow more open files"),
            (OSError(errno.EIO, "bad", "x.png"), "error: x.png: bad; look after the disk"),
        ],
    )
    def test_what_the_system_refuses_is_one_line(self, pairs, tmp_path, monkeypatch, capsys, error, line):
        def refuse(*_):
            raise error

        monkeypatch.setattr("semseg.cli.check.look_at", refuse)
        assert commands(["check", str(pairs), "--output", str(tmp_path / "out")]) == 6
        assert capsys.readouterr().err.startswith(line)
