import json

import keras
import numpy as np
import pytest
from helpers import make_pairs, save_pair

from semseg.cli import commands
from semseg.comparison.networks import group_runs
from semseg.data import open_dataset
from semseg.data.base import fold_split
from semseg.errors import DataError, ModelFileError, RunFolderError, SemsegError
from semseg.inference.card import ModelCard
from semseg.inference.ensemble import check_alike, mean_of_networks
from semseg.inference.keras_model import mean_model
from semseg.inference.logits import probabilities_of_logits
from semseg.metrics.confusion import scores
from semseg.runs.config import RunConfig
from semseg.runs.members import are_folds, joined_splits, runs_in
from semseg.runs.run import Run

SMALL = ["--image-size", "32", "--filters", "4", "--model", "unet", "--epochs", "1", "--learning-rate", "0.01"]


@pytest.mark.plain
class TestParts:
    @pytest.mark.parametrize("count", [2, 3, 5])
    def test_every_sample_is_held_out_once_and_parts_are_of_one_size(self, count):
        samples = [f"p{i}" for i in range(17)]
        parts = [fold_split(samples, f"{k}/{count}", 3) for k in range(1, count + 1)]
        assert sorted(sample for _, held_out in parts for sample in held_out) == sorted(samples)
        assert all(sorted(kept + held_out) == sorted(samples) for kept, held_out in parts)
        sizes = [len(held_out) for _, held_out in parts]
        assert max(sizes) - min(sizes) <= 1

    def test_groups_stay_together_and_the_large_ones_are_spread(self):
        samples = [f"{group}{i}" for group, size in (("a", 6), ("b", 5), ("c", 3), ("d", 1)) for i in range(size)]
        parts = [fold_split(samples, f"{k}/2", 0, group=lambda name: name[0])[1] for k in (1, 2)]
        groups = [{name[0] for name in part} for part in parts]
        assert groups[0].isdisjoint(groups[1]) and sorted(map(len, parts)) == [7, 8]

    def test_another_seed_gives_other_parts_and_the_same_seed_the_same(self):
        samples = list(range(20))
        first, again, other = (fold_split(samples, "1/4", seed)[1] for seed in (0, 0, 1))
        assert first == again != other

    def test_too_few_groups_are_refused(self, pairs):
        samples = open_dataset(pairs).samples[:3]
        with pytest.raises(DataError, match="holds 3 photos, and each of 5 folds needs one; ask for fewer"):
            fold_split(samples, "1/5", 0)

    @pytest.mark.parametrize("text", ["0/5", "6/5", "1/1", "2", "a/b", "2/5/7", "-1/5"])
    def test_what_is_no_fold_is_refused(self, text):
        with pytest.raises(
            SemsegError, match=rf"`fold`: got '{text}'; expected one of at least two folds, such as 2/5"
        ):
            RunConfig(fold=text)


@pytest.mark.plain
class TestData:
    def test_a_split_of_their_own_becomes_the_test_split(self, pairs):
        datasets = [open_dataset(pairs, fold=f"{k}/3") for k in (1, 2, 3)]
        own = open_dataset(pairs)
        assert all(dataset.splits["test"] == own.splits["val"] for dataset in datasets)
        held_out = [sample for dataset in datasets for sample in dataset.splits["val"]]
        assert sorted(map(str, held_out)) == sorted(map(str, own.splits["train"])) and len(set(held_out)) == 12
        assert "val/ takes part in no fold: it is the test split" in datasets[0].notes
        assert list(datasets[0].splits) == ["train", "val", "test"]

    def test_beside_a_test_split_it_takes_part(self, tmp_path):
        root = make_pairs(tmp_path, train=4, val=2)
        for i in range(2):
            save_pair(root / "test" / f"{i}.png", 900 + i)
        datasets = [open_dataset(root, fold=f"{k}/3") for k in (1, 2, 3)]
        assert sum(len(dataset.splits["val"]) for dataset in datasets) == 6
        assert all(len(dataset.splits["test"]) == 2 for dataset in datasets)

    def test_classes_are_the_same_in_all_folds(self, pairs):
        assert len({json.dumps(open_dataset(pairs, fold=f"{k}/4").palette.to_dict()) for k in (1, 2, 3, 4)}) == 1


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """A cross-validation in two folds: its data, its folder, and the words of its command."""
    root = tmp_path_factory.mktemp("folds")
    data, output = make_pairs(root / "data", train=8, val=2), root / "out"
    words = ["train", "--data", str(data), "--folds", "2", "--output", str(output), *SMALL]
    assert commands(words) == 0
    return data, output, words


@pytest.mark.plain
class TestACrossValidation:
    def test_scores_are_those_of_the_sum_of_the_matrices(self, folds):
        _, output, _ = folds
        runs = runs_in(output)
        assert [run.folder.name for run in runs] == ["fold_1", "fold_2"] and are_folds(runs)
        matrix = sum(run.scores.read_matrix(19) for run in runs)
        metrics = json.loads((output / "metrics.json").read_text())
        assert metrics["split"] == "out-of-fold" and metrics["images"] == 8
        assert metrics["macro_iou"] == pytest.approx(scores(matrix)["macro_iou"], abs=1e-6)
        values = [run.metrics["macro_iou"] for run in runs]
        spread = metrics["over_folds"]["macro_iou"]
        assert spread["mean"] == pytest.approx(np.mean(values)) and spread["sd"] == pytest.approx(
            np.std(values, ddof=1)
        )
        rows = (output / "per_image.csv").read_text().splitlines()
        assert len(rows) == 9 and len({row.split(",")[0] for row in rows}) == 9

    def test_no_fold_was_trained_on_what_it_is_judged_on_and_all_decide_alike(self, folds):
        runs = runs_in(folds[1])
        for run in runs:
            val = {name for (name, _), entry in run.splits.items() if entry.split == "val"}
            assert val == set(run.image_ious)
        first, second = (run.plan for run in runs)
        for section, name in (("view", "image_size"), ("batches", "batch_size"), ("augment", "changes")):
            assert first[section][name]["value"] == second[section][name]["value"]
        assert runs[0].palette.to_dict() == runs[1].palette.to_dict()

    def test_the_page_names_all_folds_and_links_to_each(self, folds, tmp_path):
        page = (folds[1] / "report.html").read_text()
        assert 'href="fold_1/report.html"' in page and "Cross-validation in 2 folds" in page and "out of fold" in page
        other = tmp_path / "page.html"
        assert commands(["report", str(folds[1]), "--output", str(other)]) == 0
        assert "Cross-validation in 2 folds" in other.read_text()

    def test_the_same_command_trains_what_is_missing_alone(self, folds, capsys):
        _, output, words = folds
        before = (output / "fold_1" / "metrics.json").stat().st_mtime_ns
        (output / "fold_2" / "metrics.json").unlink()
        with pytest.raises(RunFolderError, match=r"fold_2: the run did not finish, metrics\.json is missing"):
            runs_in(output)
        assert commands(words) == 0
        said = capsys.readouterr().out
        assert "finished before" in said and (output / "fold_2" / "metrics.json").exists()
        assert (output / "fold_1" / "metrics.json").stat().st_mtime_ns == before

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            (["--folds", "3"], "holds a run that is fold 1/2, not of 3; choose another --output, or --restart"),
            (["--epochs", "2"], "fold_1: was trained with --epochs 1 (now 2); choose another --output"),
            (["--folds", "1"], "--folds: got 1; expected at least 2"),
            (["--fold", "1/2"], "--fold: got 1/2, but every fold is judged on the photos that it holds out"),
            (["--test-split", "val"], "--test-split: got val, but every fold is judged on the photos"),
        ],
    )
    def test_what_does_not_go_together_is_said_in_one_line(self, folds, changed, message, capsys):
        assert commands([*folds[2], *changed]) != 0
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1

    def test_the_networks_answer_together(self, folds, tmp_path, capsys):
        data, output, _ = folds
        card = ModelCard.read(output)
        photo = open_dataset(data).load(open_dataset(data).samples[0])[0]
        each = [member.load().probabilities(photo) for member in card.members]
        assert len(each) == 2 and not np.allclose(*each, atol=1e-3)
        assert card.load().probabilities(photo) == pytest.approx(np.mean(each, axis=0), abs=1e-5)
        assert card.digest != card.members[0].digest
        assert commands(["predict", str(output), str(data / "val"), "--output", str(tmp_path / "p")]) == 0
        assert "(2 networks, their mean)" in capsys.readouterr().out

    def test_together_they_are_judged_on_photos_that_none_learnt(self, folds, capsys):
        _, output, _ = folds
        assert commands(["evaluate", str(output)]) == 0
        assert "Scores on test (held out: another split chose the best epoch)" in capsys.readouterr().out
        assert commands(["evaluate", str(output), "--test-split", "val"]) != 0
        assert "was trained on by some of these networks; their scores out-of-fold are in" in capsys.readouterr().err

    def test_photos_are_to_all_what_they_are_to_any(self, folds):
        splits = joined_splits(runs_in(folds[1]))
        assert sorted(entry.split for entry in splits.values()) == ["test"] * 2 + ["train"] * 8

    def test_they_are_one_file(self, folds):
        pytest.importorskip("onnx")
        if keras.backend.backend() == "jax":
            pytest.skip("JAX writes no ONNX")
        data, output, _ = folds
        assert commands(["export", str(output), "--format", "onnx"]) == 0
        photo = open_dataset(data).load(open_dataset(data).samples[0])[0]
        one, several = ModelCard.read(output / "ensemble.onnx").load(), ModelCard.read(output).load()
        assert one.probabilities(photo) == pytest.approx(several.probabilities(photo), abs=1e-3)


@pytest.mark.plain
class TestMembers:
    def make(self, folder, **facts):
        facts = {"image_size": [32, 32], "scale": None, "task": "multiclass", **facts}
        Run(folder).write_config(RunConfig(model="unet"), {}, facts)
        classes = [{"id": i, "name": name, "color": [i, i, i], "value": i} for i, name in enumerate(("road", "car"))]
        (folder / "classes.json").write_text(json.dumps({"classes": classes}))
        return Run(folder)

    @pytest.mark.parametrize(
        ("facts", "message"),
        [
            ({"image_size": [64, 32]}, "b has a view of 32x64, and a 32x32"),
            ({"scale": 0.5}, "b has crops at the scale 0.5, and a None"),
            ({"bands": {"count": 5, "dtype": "uint16"}}, "b has the bands 5 of uint16, and a RGB"),
            ({"task": "binary"}, "b has the task binary, and a multiclass"),
        ],
    )
    def test_unlike_networks_are_refused_by_what_differs(self, tmp_path, facts, message):
        runs = [self.make(tmp_path / "a"), self.make(tmp_path / "b", **facts)]
        with pytest.raises(ModelFileError, match=message):
            check_alike(tmp_path, runs)

    def test_a_folder_without_runs_has_none(self, tmp_path):
        assert runs_in(tmp_path) == [] and runs_in(tmp_path / "nowhere") == []


class TestOneModel:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_gives_the_logits_of_the_mean_probability(self, channels):
        rng = np.random.default_rng(0)
        models = []
        for _ in range(3):
            photos = keras.Input((4, 4, 3))
            models.append(keras.Model(photos, keras.layers.Conv2D(channels, 1)(photos), name="same_name"))
        photos = rng.integers(0, 256, (2, 4, 4, 3)).astype("float32")
        each = [model.predict_on_batch(photos) for model in models]
        expected = np.mean([probabilities_of_logits(logits) for logits in each], axis=0)
        together = mean_model(models, "together").predict_on_batch(photos)
        assert together.shape == (2, 4, 4, channels) and np.isfinite(together).all()
        assert probabilities_of_logits(np.asarray(together)) == pytest.approx(expected, abs=1e-5)
        networks = mean_of_networks([model.predict_on_batch for model in models])
        assert probabilities_of_logits(networks(photos)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.plain
def test_two_cross_validations_are_compared_photo_by_photo(tmp_path):
    from test_compare import make_run

    runs = []
    for model in ("unet", "resunet"):
        for k in (1, 2):
            run = make_run(tmp_path / model / f"fold_{k}", [0.1 * k, 0.2 * k], model=model, fold=f"{k}/2")
            text = (run / "per_image.csv").read_text().replace("val/", f"{k}-")
            (run / "per_image.csv").write_text(text)
            runs.append(Run.finished(run))
    first, second = group_runs(runs)
    assert len(first.runs) == 2 and first.per_photo().shape == (1, 4)
    assert first.per_photo()[0] == pytest.approx([0.1, 0.2, 0.2, 0.4]) and second.values("macro_iou").shape == (2,)
