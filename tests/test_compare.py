import csv
import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from helpers import make_folder
from scipy import stats

from semseg.backend.placing import Device
from semseg.cli import commands
from semseg.cli import compare as comparing
from semseg.cli.backends import choose_backend
from semseg.cli.flags import build_parser, given_settings, to_flags
from semseg.comparison import trainings
from semseg.comparison.apart import train_apart
from semseg.comparison.networks import Network, group_runs, unequal_conditions
from semseg.comparison.statistics import RULE, compare_networks, compare_pair, holm
from semseg.comparison.tables import summarise, table, to_csv_rows, to_markdown
from semseg.data.opening import check_data, open_data
from semseg.data.splits import splits_of
from semseg.errors import RunFolderError, SemsegError
from semseg.runs.config import RunConfig
from semseg.runs.run import Run, check_same_data
from semseg.runs.splits import SplitEntry
from semseg.training import timing

COSTS = {"parameters": 1_234_567, "gflops": 12.5, "milliseconds": 34.56}
SMALL = ["--image-size", "32", "--filters", "4", "--epochs", "1", "--learning-rate", "0.01"]


def make_run(folder, ious, *, iou=None, metrics=None, noted=None, splits=None, **config):
    """The folder of a finished run with a mean IoU for each photo; its model is an empty file."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = RunConfig(**{"model": "unet", **config})
    Run(folder).write_config(asked, {}, {"versions": {"keras": "3"}, **(noted or {})})
    if splits is not None:
        rows = [f"{split},{photo},9" for split, names in splits.items() for photo in names]
        (folder / "splits.csv").write_text("\n".join(["split,photo,bytes", *rows, ""]))
    iou = float(np.nanmean(ious)) if iou is None else iou
    values = {"split": "val", "training_seconds": 60.0, "peak_memory_mb": 500.0, "accuracy": 0.9, "macro_iou": iou}
    per_class = {"road": {"iou": iou}, "car": {"iou": None}}
    (folder / "metrics.json").write_text(json.dumps({**values, "per_class": per_class, **(metrics or {})}))
    (folder / "results.csv").write_text("epoch,loss,val_loss,val_mean_iou,seconds\n1,.5,.6,.25,30\n2,.4,.5,.5,30\n")
    rows = [f"val/{i}.png,{'' if math.isnan(value) else value}" for i, value in enumerate(ious)]
    (folder / "per_image.csv").write_text("\n".join(["photo,iou", *rows, ""]))
    (folder / "classes.json").write_text("{}")
    (folder / "unet_model.keras").write_text("")
    return folder


@pytest.fixture()
def network(tmp_path):
    """From a name and a table (S, N) of mean IoU per photo to a `Network`."""

    def make(name, values, **options):
        runs = []
        for seed, photos in enumerate(values):
            folder = make_run(tmp_path / f"{name}{seed}", photos, seed=seed, model=name, **options)
            runs.append(Run.finished(folder))
        return Network(name, runs)

    return make


@pytest.mark.plain
class TestReading:
    def test_a_run_is_read(self, tmp_path):
        run = Run.finished(make_run(tmp_path / "run", [0.5, math.nan, 0.7], seed=3))
        assert run.config.seed == 3 and run.metrics["split"] == "val"
        assert run.history[1] == {"epoch": 2, "loss": 0.4, "val_loss": 0.5, "val_mean_iou": 0.5, "seconds": 30}
        assert run.image_ious["val/0.png"] == 0.5 and math.isnan(run.image_ious["val/1.png"])

    def test_what_is_no_finished_run_is_refused(self, tmp_path):
        with pytest.raises(RunFolderError, match="nowhere: no such folder; expected the folder of a finished run"):
            Run.finished(tmp_path / "nowhere")
        (tmp_path / "file").write_text("")
        with pytest.raises(RunFolderError, match="file: is a file; expected"):
            Run.finished(tmp_path / "file")
        with pytest.raises(RunFolderError, match=r"holds no config\.json; expected the folder of a run"):
            Run.finished(tmp_path)
        make_run(tmp_path / "run", [0.5])
        (tmp_path / "run" / "metrics.json").unlink()
        with pytest.raises(RunFolderError, match=r"run: the run did not finish, metrics\.json is missing"):
            Run.finished(tmp_path / "run")

    @pytest.mark.parametrize("name", ["metrics.json", "results.csv", "per_image.csv"])
    def test_a_damaged_file_is_named_with_its_run(self, tmp_path, name):
        folder = make_run(tmp_path / "run", [0.5])
        (folder / name).write_text((folder / name).read_text().replace("0.5", "{").replace(".5,", "{,"))
        with pytest.raises(RunFolderError, match="run: cannot be read as a run"):
            Run.finished(folder)

    @pytest.mark.parametrize(
        ("name", "text", "lacks"),
        [
            ("results.csv", "epoch,loss,val_loss,seconds\n1,1,1,1\n", "column val_mean_iou"),
            ("results.csv", "epoch,loss,val_loss,val_mean_iou,seconds\n", "row"),
            ("results.csv", "", "column epoch, loss, val_loss, val_mean_iou, seconds"),
            ("per_image.csv", "photo,dice\na,1\n", "column iou"),
            ("metrics.json", '{"split": "val", "macro_iou": 1, "per_class": {}}', "training_seconds"),
        ],
    )
    def test_what_a_comparison_needs_is_missed_with_its_name(self, tmp_path, name, text, lacks):
        folder = make_run(tmp_path / "run", [0.5])
        (folder / name).write_text(text)
        with pytest.raises(RunFolderError, match=f"run: {name} holds no {lacks}; train it again"):
            Run.finished(folder)


@pytest.mark.plain
class TestGrouping:
    def runs(self, tmp_path, *configs, photos=(0.5, 0.6), **options):
        return [
            Run.finished(make_run(tmp_path / str(i), photos, **config, **options)) for i, config in enumerate(configs)
        ]

    def test_seeds_belong_together_and_settings_make_names(self, tmp_path):
        wide = {"filters": 32, "image_size": (64, 96)}
        runs = self.runs(tmp_path, {"seed": 1}, {"seed": 0, "workers": 5}, {"model": "resunet"}, wide)
        networks = group_runs(runs)
        names = ["unet image_size=None filters=16", "resunet", "unet image_size=64x96 filters=32"]
        assert [network.name for network in networks] == names
        assert [run.config.seed for run in networks[0].runs] == [0, 1]

    def test_one_network_and_a_run_given_twice(self, tmp_path):
        with pytest.raises(RunFolderError, match=r"runs of one network only \(unet\); expected at least two"):
            group_runs(self.runs(tmp_path, {"seed": 1}, {"seed": 2}))
        with pytest.raises(RunFolderError, match=r"1: the same network and seed as .*0; give each run once"):
            group_runs(self.runs(tmp_path, {"seed": 1}, {"seed": 1}))

    @pytest.mark.parametrize(
        ("change", "aspect"),
        [
            ({"ious": [0.5]}, "photos"),
            ({"ious": [0.5, 0.6], "metrics": {"split": "test"}}, "split"),
            ({"ious": [0.5, 0.6], "metrics": {"per_class": {"cat": {"iou": 1}}}}, "classes"),
        ],
    )
    def test_other_truth_is_refused(self, tmp_path, change, aspect):
        one = Run.finished(make_run(tmp_path / "a", [0.5, 0.6]))
        other = Run.finished(make_run(tmp_path / "b", model="resunet", **change))
        with pytest.raises(RunFolderError, match=f"b: was judged on other {aspect} than .*a; .*`split_seed`"):
            group_runs([one, other])

    def test_unequal_conditions_are_named(self, tmp_path):
        runs = self.runs(tmp_path, {"seed": 0}, {"seed": 1}, {"model": "resunet", "epochs": 20})
        assert unequal_conditions(group_runs(runs)) == ["epochs: unet 10, resunet 20", "seed: unet 0 1, resunet 0"]
        assert unequal_conditions(group_runs([runs[0], *self.runs(tmp_path / "again", {"model": "resunet"})])) == []

    def test_other_training_photos_machines_and_versions_are_named(self, tmp_path):
        one = {"device": "CPU", "parameters": 5, "versions": {"torch": "2.1"}}
        runs = [
            Run.finished(make_run(tmp_path / "a", [0.5], noted=one, splits={"train": "ab", "val": "c"})),
            Run.finished(
                make_run(tmp_path / "b", [0.5], noted={**one, "parameters": 6}, splits={"train": "ab"}, seed=1)
            ),
            Run.finished(make_run(tmp_path / "c", [0.5], noted={"samples": {"train": 9}}, model="resunet")),
        ]
        assert (
            runs[0].split_digests["train"] == runs[1].split_digests["train"] and runs[0].split_digests["train"][0] == 2
        )
        digests = [runs[0].split_digests[split][1] for split in ("train", "val")]
        assert digests[0] != digests[1]
        assert unequal_conditions(group_runs(runs)) == [
            "seed: unet 0 1, resunet 0",
            "parameters: unet 5 6, resunet unknown",
            "device: unet CPU, resunet unknown",
            f"training photos: unet 2 (list {digests[0]}), resunet 9 (list unknown)",
            f"validation photos: unet 1 (list {digests[1]}) unknown, resunet unknown",
            "torch: unet 2.1, resunet unknown",
            "keras: unet unknown, resunet 3",
        ]

    @pytest.mark.parametrize(
        ("splits", "told"),
        [
            (
                {"train": "abc", "val": "d"},
                "b: has 3 training photos, 1 validation photos, 2 classes; .*a has 2 training",
            ),
            ({"train": "ab"}, "b: has 2 training photos, 2 classes; .*a has 2 training photos, 1 validation"),
            (
                {"train": "ax", "val": "d"},
                "2 classes of other names or content; .*a has 2 .*; the data changed; use another",
            ),
        ],
    )
    def test_data_that_changed_between_two_trainings_are_refused(self, tmp_path, splits, told):
        first = Run.finished(make_run(tmp_path / "a", [0.5], splits={"train": "ab", "val": "d"}))
        with pytest.raises(RunFolderError, match=told):
            check_same_data(first, Run.finished(make_run(tmp_path / "b", [0.5], splits=splits)))

    def test_masks_that_changed_between_two_trainings_are_refused(self, tmp_path):
        runs = [Run.finished(make_run(tmp_path / name, [0.5], model=name)) for name in ("a", "b", "older")]
        for run, digest in zip(runs, ("0a", "0b", ""), strict=True):
            run.write_splits({("1.png", 9): SplitEntry("train", digest), ("2.png", 9): SplitEntry("val", "0c")})
        runs = [Run.finished(run.folder) for run in runs]
        with pytest.raises(RunFolderError, match=r"b: has .* of other names or content; .*the data changed"):
            check_same_data(*runs[:2])
        with pytest.raises(RunFolderError, match=r"b: 1\.png had another content, or other masks, than for .*a; the"):
            group_runs(runs[:2])
        check_same_data(runs[0], runs[2])

    def test_the_next_training_does_not_begin_on_data_that_changed(self, tmp_path):
        config = RunConfig(data=str(make_folder(tmp_path / "data")), image_size=(32, 32), output=str(tmp_path / "a"))
        dataset = open_data(config)
        check_data(config, dataset)
        run = Run(make_run(tmp_path / "a", [0.5], **asdict(config)))
        run.write_splits(splits_of(dataset))
        shutil.copy(tmp_path / "data/masks/1.png", tmp_path / "data/masks/0.png")
        trained = []
        with pytest.raises(RunFolderError, match=r"images/0\.jpg or its masks changed since the run .*a; use another"):
            trainings.train_all([config, replace(config, seed=1, output=str(tmp_path / "b"))], trained.append, print)
        assert not trained

    def test_the_same_data_and_older_runs_pass_and_other_classes_do_not(self, tmp_path):
        first = Run.finished(make_run(tmp_path / "a", [0.5], splits={"train": "ab"}))
        check_same_data(first, Run.finished(make_run(tmp_path / "b", [0.5], splits={"train": "ba"})))
        check_same_data(first, Run.finished(make_run(tmp_path / "c", [0.5])))
        check_same_data(first, Run.finished(make_run(tmp_path / "d", [0.5], noted={"samples": {"train": 2, "val": 0}})))
        with pytest.raises(RunFolderError, match="e: has 3 training photos"):
            check_same_data(first, Run.finished(make_run(tmp_path / "e", [0.5], noted={"samples": {"train": 3}})))
        other = make_run(tmp_path / "f", [0.5], splits={"train": "ab"}, metrics={"per_class": {"cat": {"iou": 1}}})
        with pytest.raises(
            RunFolderError, match=r"f: has 2 training photos, 1 classes; .*a has 2 training photos, 2 c"
        ):
            check_same_data(first, Run.finished(other))


@pytest.mark.plain
class TestStatistics:
    def test_a_pair_by_hand(self, network):
        d = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])  # of photos; seeds of a lie 0.02 apart, those of b 0.04
        a, b = network("a", [0.5 + d - 0.01, 0.5 + d + 0.01]), network("b", [[0.48] * 6, [0.52] * 6])
        pair = compare_pair(a, b)
        assert pair.difference == pytest.approx(0.035)
        assert (pair.photos, pair.ahead) == (6, 6)
        assert pair.p_photos == pytest.approx(2 / 2**6)  # all six signs alike
        parts = [0.00035 / 6, 0.0002 / 2, 0.0008 / 2]  # variances 0.00175/5, 0.02**2/2, 0.04**2/2
        freedom = sum(parts) ** 2 / (parts[0] ** 2 / 5 + parts[1] ** 2 + parts[2] ** 2)
        error = math.sqrt(sum(parts))
        assert pair.p_trainings == pytest.approx(2 * stats.t(freedom).sf(0.035 / error))
        assert pair.high - pair.difference == pytest.approx(stats.t(freedom).ppf(0.975) * error)

    def test_photos_without_a_score_are_left_out(self, network):
        a, b = network("a", [[0.5, math.nan, 0.7], [0.5, 0.6, 0.7]]), network("b", [[0.4, 0.1, 0.6]] * 2)
        assert compare_pair(a, b).photos == 2
        assert compare_pair(a, b).difference == pytest.approx(0.1)

    def test_equal_networks_cannot_be_told_apart(self, network):
        same = np.linspace(0.2, 0.8, 9) + np.array([[0], [0.01]])
        (pair,) = compare_networks([network("a", same), network("b", same)])
        assert (pair.p_photos, pair.difference, pair.verdict) == (1, 0, "cannot be told apart")

    def test_holm(self):
        assert holm([0.01, 0.04, math.nan, 0.03])[:2] == pytest.approx([0.03, 0.06])
        assert math.isnan(holm([0.01, math.nan])[1])
        assert holm([0.6, 0.9]) == [1, 1]

    def test_a_chance_difference_is_seldom_real_although_seeds_differ(self, network):
        rng = np.random.default_rng(0)
        one, other = network("a", np.zeros((3, 60))), network("b", np.zeros((3, 60)))
        rejected, alone = 0, 0
        for _ in range(300):
            base = rng.uniform(0.2, 0.8, 60)
            for of in (one, other):
                drawn = base + rng.normal(0, 0.03, 60) + rng.normal(0, 0.02, (3, 1)) + rng.normal(0, 0.05, (3, 60))
                fill(of, drawn)
            (pair,) = compare_networks([one, other])
            rejected += pair.verdict != "cannot be told apart"
            alone += pair.p_photos < 0.05
        assert rejected <= 0.08 * 300 < 0.3 * 300 < alone

    def test_a_clear_difference_is_found_in_both_directions(self, network):
        rng = np.random.default_rng(1)
        base = rng.uniform(0.2, 0.7, 40)
        values = [
            base + shift + rng.normal(0, 0.005, (3, 1)) + rng.normal(0, 0.03, (3, 40)) for shift in (0, 0.06, -0.06)
        ]
        pairs = compare_networks([network(name, of) for name, of in zip("abc", values, strict=True)])
        assert [(pair.network, pair.baseline, pair.verdict) for pair in pairs] == [
            ("b", "a", "better"), ("c", "a", "worse"), ("c", "b", "worse"),
        ]  # fmt: skip
        assert "beyond the spread of photos and seeds (p < 0.001)" in pairs[2].reason


def fill(network, values):
    """Other values for a network's photos and split."""
    for run, photos in zip(network.runs, values, strict=True):
        run.image_ious.update(zip(list(run.image_ious), photos.tolist(), strict=True))
        run.metrics["macro_iou"] = float(photos.mean())


@pytest.mark.plain
class TestReasons:
    BASE = np.linspace(0.3, 0.6, 12)
    AHEAD = BASE + np.linspace(0.02, 0.04, 12)

    @pytest.mark.parametrize(
        ("ahead", "base", "reason"),
        [
            ([AHEAD], [BASE], "with one seed the spread between trainings is unknown: train more seeds"),
            (
                [AHEAD - 0.1, AHEAD + 0.1],
                [BASE - 0.1, BASE + 0.1],
                "the photos agree (p < 0.001), but other photos and",
            ),
            ([AHEAD[:4]] * 2, [BASE[:4]] * 2, "4 photos are too few for a test, which needs 6"),
            ([BASE + 0.02 * (-1) ** np.arange(12)] * 2, [BASE] * 2, "the photos do not agree (p = "),
        ],
    )
    def test_a_difference_that_is_not_sure_says_why(self, network, ahead, base, reason):
        (pair,) = compare_networks([network("base", base), network("ahead", ahead)])
        assert pair.verdict == "cannot be told apart" and reason in pair.text, pair.text

    def test_the_whole_split_must_agree(self, network):
        ahead = [self.AHEAD - 0.001, self.AHEAD + 0.001]
        (pair,) = compare_networks([network("base", [self.BASE] * 2), network("ahead", ahead, iou=0.1)])
        assert pair.verdict == "cannot be told apart" and "over the whole split does not (-0.3500)" in pair.text


@pytest.mark.plain
class TestSummary:
    @pytest.fixture()
    def summary(self, network):
        networks = [network("unet", [[0.3] * 8, [0.5] * 8]), network("n" * 50, [[0.6] * 8, [0.7] * 8])]
        return summarise(networks, {network.name: COSTS for network in networks})

    def test_networks_stand_by_mean_iou_with_mean_and_deviation(self, summary):
        assert [row["name"][:4] for row in summary["networks"]] == ["nnnn", "unet"]
        assert summary["networks"][1]["scores"]["macro_iou"] == {
            "mean": pytest.approx(0.4), "sd": pytest.approx(math.sqrt(0.02)), "values": [0.3, 0.5],
        }  # fmt: skip
        assert summary["networks"][1]["per_class"]["car"] == {"mean": None, "sd": None, "values": [None, None]}
        assert summary["baseline"] == "unet" and summary["networks"][1]["memory_mb"] == 500
        json.dumps(summary, allow_nan=False)

    def test_a_score_that_some_run_lacks_is_a_dash_and_no_end(self, network):
        first, other = network("unet", [[0.3] * 8, [0.5] * 8]), network("resunet", [[0.3] * 8])
        first.runs[1].metrics.update(macro_dice=0.6)
        del first.runs[1].metrics["accuracy"], other.runs[0].metrics["accuracy"]
        del first.runs[1].metrics["per_class"]["road"]["iou"]
        rows = table(summarise([first, other], dict.fromkeys(("unet", "resunet"), COSTS)))
        assert [row[-3:] for row in rows[1:]] == [[".600", "-", ".900"], ["-", "-", "-"]]

    def test_runs_that_failed_are_told(self, summary, capsys):
        summary["failed"] = ["unet-seed1: ended with code 7: the loss became NaN"]
        assert "## Runs that failed\n\n- unet-seed1: ended with code 7" in to_markdown(summary, [])
        comparing._say(summary)
        assert "failed    unet-seed1: ended" in capsys.readouterr().out

    def test_the_printed_table_fits_110_columns(self, summary, capsys):
        comparing._say(summary)
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 120 and max(len(line) for line in lines[:5]) <= 110
        assert lines[2] == "n" * 50 and ".650 ±.071" in lines[3]  # a long name has a line of its own
        assert "1.23M" in lines[4] and ".400 ±.141" in lines[4] and "34.6" in lines[4]

    def test_the_page_and_the_csv_hold_everything(self, summary):
        text = to_markdown(summary, ["how it was"])
        for part in ("| unet | 1.23M | 12.5 |", "| car | - | - |", "cannot be told apart", "- how it was", "Wilcoxon"):
            assert part in text
        assert "not equal" not in text and " ".join(RULE.split()) in text
        row = to_csv_rows(summary)[1]
        assert row["macro_iou_mean"] == pytest.approx(0.4) and row["seeds"] == 2 and row["iou road_sd"] > 0.1
        assert len(table(summary)) == 3


@pytest.mark.plain
class TestTheCommand:
    def fails(self, capsys, code, part, *arguments):
        assert commands(["compare", *arguments]) == code
        error = capsys.readouterr().err
        assert error.startswith("error: ") and part in error and error.count("\n") == 1, error

    def test_bad_input(self, capsys, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        make_run(tmp_path / "a", [0.5])
        self.fails(capsys, 2, "give either --models unet,r2unet,...")
        self.fails(capsys, 2, "give either --models", "a", "b", "--models", "unet,resunet")
        self.fails(capsys, 2, "there is no network 'vnet', 'x'; choose from unet, ", "--models", "unet,vnet,x")
        self.fails(capsys, 2, "got unet,unet; expected at least two different", "--models", "unet,unet")
        self.fails(capsys, 2, "got unet; expected at least two different networks", "--models", "unet")
        self.fails(capsys, 2, "--seeds: got 0; expected", "--models", "unet,resunet", "--seeds", "0")
        self.fails(capsys, 2, "--minutes: got 0.0; expected", "--models", "unet,resunet", "--minutes", "0")
        for epochs in ("5", "10"):  # 10 is the default
            both = ["--minutes", "3", "--epochs", epochs]
            self.fails(capsys, 2, f"got 3 and --epochs {epochs}", "--models", "unet,resunet", *both)
        self.fails(
            capsys, 2, "--encoder: got ResNet50, but --models unet,", "--models", "unet,x", "--encoder", "ResNet50"
        )
        self.fails(capsys, 2, "--encoder-weights: got none", "--models", "unet,x", "--encoder-weights", "none")
        for flag in (["--epochs", "10"], ["--seeds", "3"], ["--skip-bad"], ["--minutes", "1"], ["--data", "images"]):
            self.fails(capsys, 2, f"{flag[0]}: finished runs are compared as they were trained", "a", "b", *flag)
        self.fails(capsys, 4, "runs of one network only (unet)", "a")
        self.fails(capsys, 4, "b: no such folder; expected the folder of a finished run", "a", "b")
        assert {path.name for path in tmp_path.iterdir()} == {"a"}

    def test_a_finished_run_with_other_settings_is_not_taken(self, capsys, tmp_path):
        make_run(tmp_path / "runs" / "unet-seed0", [0.5], filters=8, output="elsewhere", workers=7)
        arguments = ["--models", "unet,resunet", "--output", str(tmp_path), "--backend", choose_backend(None)]
        self.fails(capsys, 4, "unet-seed0: was trained with ", *arguments)
        self.fails(capsys, 4, "--filters 8 (now 16)", *arguments)

    def test_the_flags_of_a_run_ask_for_that_run(self):
        config = RunConfig(
            data="d", image_size=(32, 64), classes=3, skip_bad=True, limit=7, seed=4, output="o", split_seed=2
        )
        arguments = build_parser().parse_args(["train", *to_flags(config)])
        assert RunConfig(**given_settings(arguments)) == config

    def test_a_run_that_fails_gives_its_line_and_its_code(self, tmp_path):
        config = RunConfig(data=str(tmp_path / "nowhere"), output=str(tmp_path / "run"))
        with pytest.raises(
            SemsegError, match=r"run: ended with code 3: .*nowhere: no such .*; see log-failed\.txt"
        ) as caught:
            ((_, _, error),) = train_apart([("run 1/1", config)], to_flags, [Device()])
            raise error
        assert caught.value.exit_code == 3
        assert "nowhere" in (tmp_path / "run" / "log-failed.txt").read_text()
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["log-failed.txt"]

    def test_minutes_become_epochs_that_are_remembered(self, tmp_path, monkeypatch):
        asked = []

        def measured(config, models):
            asked.append(models)
            return {"unet": 10.0, "resunet": 400.0}

        monkeypatch.setattr(trainings, "measured_apart", measured)
        config = RunConfig(output=str(tmp_path))
        rest = (["unet", "resunet"], tmp_path, lambda *_: None)
        assert trainings.epochs_in(2, config, *rest) == {"unet": 10, "resunet": 1}
        assert trainings.epochs_in(2, replace(config, seed=5), *rest)["unet"] == 10
        assert asked == [["unet", "resunet"]]
        with pytest.raises(RunFolderError, match=r"settings\.json: epochs were measured for another `minutes`"):
            trainings.epochs_in(3, config, *rest)

    @pytest.mark.parametrize(
        "text", ["{", "[]", '{"conditions": {}}', '{"conditions": {}, "seconds_per_epoch": {"unet": 0}}']
    )
    def test_damaged_settings_are_named(self, tmp_path, text):
        (tmp_path / "settings.json").write_text(text)
        with pytest.raises(RunFolderError, match=r"settings\.json: cannot be read \(.*\); remove it, and the epochs"):
            trainings.epochs_in(2, RunConfig(), ["unet", "resunet"], tmp_path, lambda *_: None)


@pytest.mark.plain
class TestWhatFails:
    """Trainings are replaced by folders as they would leave them: their models, empty files, cannot be opened."""

    def compare(self, monkeypatch, tmp_path, failing, *arguments, code=7, splits=lambda _: {"train": "ab"}):
        def train(runs, **options):
            for label, config in runs:
                folder, error = Path(config.output), None
                trained.append(folder.name)
                if folder.name in failing:
                    error = SemsegError(f"{folder}: ended with code {code}: the loss became NaN")
                    error.exit_code = code
                else:
                    noted = {"parameters": 77}
                    make_run(folder, [0.5] * 8, splits=splits(folder.name), noted=noted, **asdict(config))
                yield label, config, error

        trained = []
        monkeypatch.setattr(comparing, "train_apart", train)
        monkeypatch.setattr(trainings, "_refuse_changed_data", lambda config: None)  # there are no data
        asked = ["--models", "unet,resunet", "--seeds", "2", "--data", "x", "--output", str(tmp_path), *arguments]
        return commands(["compare", *asked]), trained

    def test_one_that_diverges_leaves_the_others_and_the_code(self, monkeypatch, tmp_path, capsys):
        code, trained = self.compare(monkeypatch, tmp_path, ["unet-seed1"])
        assert code == 7 and trained == ["unet-seed0", "resunet-seed0", "unet-seed1", "resunet-seed1"]
        told = capsys.readouterr()
        lines = " ".join(told.out.split())
        assert "run 3/4 unet, seed 1: failed; " in lines and f"failed {tmp_path}" in lines
        assert told.err.startswith("error: 1 of the runs failed, the others were compared; ")
        summary = json.loads((tmp_path / "comparison.json").read_text())
        assert {row["name"]: row["seeds"] for row in summary["networks"]} == {"unet": [0], "resunet": [0, 1]}
        assert "unet-seed1: ended with code 7" in summary["failed"][0]
        assert "## Runs that failed" in (tmp_path / "comparison.md").read_text()
        # A model that cannot be opened costs its costs and its pictures, not the comparison.
        assert [[row["parameters"], row["gflops"], row["milliseconds"]] for row in summary["networks"]] == [
            [77, None, None]
        ] * 2
        assert "Without costs, since the model cannot be opened: unet, resunet." in summary["how"]
        assert (tmp_path / "curves.png").exists() and not (tmp_path / "side_by_side.png").exists()
        # The same command tries the failed one again, and only that.
        assert self.compare(monkeypatch, tmp_path, [])[:2] == (0, ["unet-seed1"])
        assert json.loads((tmp_path / "comparison.json").read_text())["failed"] == []

    def test_a_network_without_any_run_leaves_nothing_to_compare(self, monkeypatch, tmp_path, capsys):
        assert self.compare(monkeypatch, tmp_path, ["unet-seed0", "unet-seed1"], code=6)[0] == 6
        assert "2 of the runs failed, less than two networks are left to compare" in capsys.readouterr().err

    def test_what_every_run_would_meet_ends_at_once(self, monkeypatch, tmp_path, capsys):
        assert self.compare(monkeypatch, tmp_path, ["resunet-seed0"], code=3) == (3, ["unet-seed0", "resunet-seed0"])
        assert capsys.readouterr().err.count("\n") == 1

    def test_data_that_change_end_it_and_the_comparison_before_stays(self, monkeypatch, tmp_path, capsys):
        for name in comparing.COMPARISON_FILES:
            (tmp_path / name).write_text("before")
        code, trained = self.compare(monkeypatch, tmp_path, [], splits=lambda name: {"train": name})
        assert code == 4 and trained == ["unet-seed0", "resunet-seed0"]
        assert "has 13 training photos, 2 classes; " in capsys.readouterr().err
        monkeypatch.setattr(comparing, "_draw", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            self.compare(monkeypatch, tmp_path, [], "--seed", "5")
        assert {(tmp_path / name).read_text() for name in comparing.COMPARISON_FILES} == {"before"}
        assert {path.name for path in tmp_path.iterdir()} == {*comparing.COMPARISON_FILES, "runs"}


@pytest.mark.plain
def test_seeds_share_one_drawn_split(tmp_path):
    from semseg.data.opening import open_data

    make_folder(tmp_path, 10)
    drawn = [
        open_data(RunConfig(data=str(tmp_path), seed=s, split_seed=split)) for s, split in ((0, 0), (1, 0), (0, 1))
    ]
    first, second, third = ([sample.photo for sample in dataset.splits["val"]] for dataset in drawn)
    assert first == second != third


@pytest.mark.plain
def test_the_seconds_of_an_epoch_are_measured(pairs):
    config = RunConfig(data=str(pairs), image_size=(32, 32), filters=2)
    measured = timing.seconds_per_epoch(config, ["unet", "resunet"])
    assert set(measured) == {"unet", "resunet"} and all(0 < value < 600 for value in measured.values())


@pytest.mark.plain  # the runs are processes of their own: other tests train on every backend
def test_networks_are_trained_stopped_continued_and_compared(pairs, tmp_path, capsys, monkeypatch):
    """Also: finished runs by their folders."""
    output = tmp_path / "out"
    arguments = ["--data", str(pairs), "--models", "unet,resunet", "--seeds", "1", *SMALL, "--output", str(output)]
    show = comparing.Progress.show

    def stop_in_the_second(self, *rest):
        if self.label.startswith("run 2/2"):
            raise KeyboardInterrupt
        show(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(comparing.Progress, "show", stop_in_the_second)
        assert commands(["compare", *arguments]) == 130
    assert "stopped by Ctrl-C" in capsys.readouterr().err
    first = (output / "runs" / "unet-seed0" / "metrics.json").stat().st_mtime_ns
    assert not (output / "runs" / "resunet-seed0" / "metrics.json").exists()

    assert commands(["compare", *arguments]) == 0
    text = capsys.readouterr().out
    assert "run 1/2   unet, seed 0" in text and "finished before" in text and "resunet against unet: " in text
    assert (output / "runs" / "unet-seed0" / "metrics.json").stat().st_mtime_ns == first
    assert {path.name for path in output.iterdir()} == {*comparing.COMPARISON_FILES, "runs"}
    runs = [Run.finished(folder) for folder in sorted((output / "runs").iterdir())]
    assert len({run.metrics["macro_iou"] for run in runs}) == 2
    assert all(run.facts["device"] and run.split_digests["train"][1] != "unknown" for run in runs)
    with (output / "comparison.csv").open() as file:
        assert {row["name"] for row in csv.DictReader(file)} == {"unet", "resunet"}

    folders = [str(output / "runs" / name) for name in ("unet-seed0", "resunet-seed0")]
    assert commands(["compare", *folders, "--output", str(tmp_path / "two")]) == 0
    assert "4 photos are too few" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "two" / "side_by_side.png").exists()
