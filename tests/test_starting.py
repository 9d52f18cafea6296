"""What a training starts from: the weights of another network, levels that are frozen, and averaged weights."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import make_folder, make_pairs

from semseg.architectures import ARCHITECTURES, build_model
from semseg.architectures.levels import encoder_levels
from semseg.backend.optimizer import averages_of
from semseg.backend.statistics import count_statistics
from semseg.cli import main, train
from semseg.errors import SemsegError
from semseg.runs.checkpoints import Checkpoints
from semseg.runs.config import RunConfig
from semseg.runs.run import Run
from semseg.training.averaging import Averaged, try_average
from semseg.training.callbacks import KeepBest, StopEarly
from semseg.training.loop import make_batches, train_model, training_model
from semseg.training.plan import plan_run
from semseg.training.saving import SaveState
from semseg.training.starting import freeze, refuse_unlearnt, take_weights

CONFIG = RunConfig(epochs=1, batch_size=4, image_size=(32, 32), average=True)
PHOTOS = [np.float32([0, 2]).reshape(2, 1, 1, 1), np.float32([4, 8]).reshape(2, 1, 1, 1)]


def small(num_logits=19, bands=3, filters=8):
    """Two levels and a head; the kernel of the second is one for Muon."""
    keras.utils.set_random_seed(3)
    inputs = x = keras.Input((32, 32, bands))
    for level in ("down1", "bottleneck"):
        x = keras.layers.Conv2D(filters, 3, padding="same", name=f"{level}_conv")(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(name=f"{level}_norm")(x))
    return keras.Model(inputs, keras.layers.Conv2D(num_logits, 1, name="logits")(x))


def weights_of(model):
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


@pytest.fixture(scope="module")
def frozen_run(dataset, tmp_path_factory):
    """Before and after an epoch with a frozen encoder, and what became of the averages."""
    model, plan, folder = small(), plan_run(CONFIG, dataset), tmp_path_factory.mktemp("frozen")
    freeze(model, "encoder")
    before, said = weights_of(model), []
    history = train_model(
        model, make_batches(dataset, plan), plan, model_path=folder / "model.keras",
        results_path=folder / "results.csv", on_average=said.append,
    )  # fmt: skip
    return before, weights_of(model), said, history[0]["val_mean_iou"]


def test_frozen_layers_keep_every_bit_and_the_others_learn(frozen_run):
    before, after, *_ = frozen_run
    for name in ("down1_conv", "down1_norm", "bottleneck_conv", "bottleneck_norm"):
        for ours, theirs in zip(before[name], after[name], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert all((ours != theirs).all() for ours, theirs in zip(before["logits"], after["logits"], strict=True))


def test_averages_are_tried_when_asked_for(frozen_run):
    (averaged,), best = frozen_run[2:]
    assert 0 <= averaged.score <= 1 and averaged.best == best


@pytest.mark.parametrize(("best", "kept"), [(-1.0, True), (2.0, False)])
def test_averaged_weights_are_kept_if_they_win(dataset, tmp_path, best, kept):
    model, plan = small(), plan_run(CONFIG, dataset)
    trained, batches = training_model(model, plan), make_batches(dataset, plan)
    trained.compile(plan.recipe.optimizer(model))
    trained.optimizer.build(trained.trainable_variables)
    for average, variable in zip(averages_of(trained.optimizer), trained.trainable_variables, strict=True):
        average.assign(np.ones(variable.shape, "float32"))
    keeper, looks = KeepBest(model, tmp_path / "model.keras"), []
    keeper.best = best
    averaged = try_average(trained, keeper, batches, 1, lambda: looks.append(1))
    for loader in batches:
        loader.close()
    assert (averaged.is_kept, averaged.best, keeper.path.exists()) == (kept, best, kept)
    assert len(looks) == 3 + 1  # batches of training and of validation
    assert all((variable == 1).all() for variable in map(np.array, model.get_layer("logits").get_weights()))
    mean = np.array(model.get_layer("down1_norm").moving_mean)
    assert (mean == mean[0]).all() and mean[0] > 100  # of 27 products of 1 and photos up to 255


def test_statistics_are_those_of_all_batches_and_frozen_ones_stay():
    model = keras.Sequential([keras.Input((1, 1, 1)), keras.layers.BatchNormalization(momentum=0.9)])
    count_statistics(model, PHOTOS)  # means 1 and 6, variances 1 and 4
    assert [float(np.ravel(weight)[0]) for weight in model.get_weights()[2:]] == [3.5, 2.5]
    assert model.layers[0].momentum == 0.9
    model.layers[0].trainable = False
    count_statistics(model, PHOTOS[:1])
    assert float(np.ravel(model.layers[0].moving_mean)[0]) == 3.5


# --------------------------------------------------------------------------------------------- weights of another


def ramp(model):
    """Each weight another number."""
    for weight in model.weights:
        weight.assign(np.arange(np.prod(weight.shape), dtype="float32").reshape(weight.shape))
    return model


@pytest.mark.plain
def test_the_same_network_gives_all():
    model, source = small(), ramp(small())
    taken = take_weights(model, source, ["a"] * 19, ["a"] * 19)
    assert taken.text == "took 5 of 5 layers" and len(taken.layers) == 5
    for ours, theirs in zip(model.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.plain
def test_of_the_head_the_rows_of_classes_of_the_same_name_are_taken():
    model, source = small(3, filters=5), ramp(small(4, filters=5))
    before = model.get_layer("logits").get_weights()
    taken = take_weights(model, source, ["cat", "road", "sky"], ["sky", "car", "road", "tree"])
    assert taken.text == "took 5 of 5 layers, of logits the rows of road, sky"
    kernel, bias = model.get_layer("logits").get_weights()
    assert bias.tolist() == [before[1][0], 2, 0]
    np.testing.assert_array_equal(kernel[0, 0, :, 1], np.arange(5) * 4 + 2)
    np.testing.assert_array_equal(kernel[0, 0, :, 0], before[0][0, 0, :, 0])


@pytest.mark.plain
@pytest.mark.parametrize(("logits", "classes", "theirs", "expected"), [
    (2, ["x", "y", "z"], list("abcd"), "took 4 of 5 layers; not: logits (4 classes there, 3 here)"),
    (1, ["x", "y"], ["x", "z"], "took 4 of 5 layers; not: logits (2 classes there, 2 here)"),
    (1, ["x", "y"], ["x", "y"], "took 5 of 5 layers"),
    (1, ["x", "y"], None, "took 5 of 5 layers"),
    (3, ["x", "y", "z"], None, "took 4 of 5 layers; not: logits (2 classes there, 3 here)"),
])  # fmt: skip
def test_heads_of_other_classes_begin_anew(logits, classes, theirs, expected):
    source = small(4 if theirs and len(theirs) == 4 else 1)
    assert take_weights(small(logits), source, classes, theirs).text == expected


@pytest.mark.plain
def test_photos_of_other_bands_meet_the_mean_kernel():
    model, source = small(2, bands=4), ramp(small(2))
    taken = take_weights(model, source, ["a", "b"], ["a", "b"])
    assert taken.text == "took 5 of 5 layers, of down1_conv the mean over 3 bands"
    kernel, theirs = (each.get_layer("down1_conv").get_weights()[0] for each in (model, source))
    np.testing.assert_allclose(kernel.sum(axis=2), theirs.sum(axis=2), rtol=1e-6)  # a grey photo looks as before
    assert kernel.shape[2] == 4 and (kernel[:, :, :1] == kernel).all()


@pytest.mark.plain
def test_layers_that_keras_named_are_counted():
    def unnamed(count):
        inputs = x = keras.Input((8, 8, 3))
        for _ in range(count):
            x = keras.layers.Conv2D(3, 1)(x)
        return keras.Model(inputs, keras.layers.Conv2D(2, 1, name="logits")(x))

    model, source = unnamed(3), ramp(unnamed(3))
    assert take_weights(model, source, ["a", "b"], ["a", "b"]).text == "took 4 of 4 layers"
    np.testing.assert_array_equal(model.get_weights()[0], source.get_weights()[0])
    taken = take_weights(unnamed(2), source, ["a", "b"], ["a", "b"])
    assert taken.text.startswith("took 1 of 3 layers; not: conv2d") and "(not there)" in taken.text


@pytest.mark.plain
def test_another_network_gives_what_fits_and_none_is_refused():
    unet = build_model("unet", (16, 16, 3), 2, filters=2)
    other = build_model("attention_unet", (16, 16, 3), 2, filters=2)
    assert take_weights(other, unet, ["a", "b"], ["a", "b"]).text.startswith("took 41 of 6")
    with pytest.raises(SemsegError, match=r"`init`: no layer of that unet fits this unet: down1_conv1 \(3x3x3x2 there, "
                                          r"3x3x3x5 here\), .* and \d+ more; expected a network"):  # fmt: skip
        take_weights(build_model("unet", (16, 16, 3), 2, filters=5), unet, ["a", "b"], ["c", "d"])


# ----------------------------------------------------------------------------------------------- levels, freezing


@pytest.mark.plain
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "encoder_unet"])
def test_every_network_has_levels_from_the_photo_to_the_bottleneck(name):
    levels = encoder_levels(build_model(name, (32, 32, 3), 2, filters=2))
    starts = [{layer.name.split("_")[0] for layer in level} for level in levels]
    first, last = int(name != "fast_unet"), f"down{len(levels)}" if name == "unetpp" else "bottleneck"
    assert starts == [*({f"down{number}"} for number in range(first, first + len(levels) - 1)), {last}]
    assert len(levels) == {"resunet": 4, "ddunet": 4, "fast_unet": 6}.get(name, 5)


@pytest.mark.plain
def test_the_levels_of_an_image_network_are_its_stages():
    model = build_model("encoder_unet", (64, 64, 3), 2, filters=2, encoder="VGG16", encoder_weights="none")
    levels = [[layer.name for layer in level] for level in encoder_levels(model)]
    assert levels[0] == ["block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2"]  # below the first connection
    assert len(levels) == 4 and levels[3][-1] == "block5_conv3"
    assert sum(map(len, levels)) == 13  # all convolutions of the network, and none of the decoder


@pytest.mark.plain
@pytest.mark.parametrize(("what", "count"), [("none", 0), ("1", 2), ("2", 4), ("encoder", 4)])
def test_levels_are_frozen_from_the_photo_on(what, count):
    model = small()
    assert len(freeze(model, what)) == count
    assert [layer.trainable for layer in model.layers if layer.weights] == [False] * count + [True] * (5 - count)


@pytest.mark.plain
def test_what_cannot_be_frozen_is_refused():
    with pytest.raises(SemsegError, match=r"`freeze`: got 3, and the encoder of .* has 2 levels; expected at most"):
        freeze(small(), "3")
    inputs = keras.Input((8, 8, 3))
    with pytest.raises(SemsegError, match=r"`freeze`: got encoder, and nothing tells the encoder of .*; expected lay"):
        freeze(keras.Model(inputs, keras.layers.Conv2D(2, 1)(inputs)), "encoder")
    frozen = freeze(small(), "1")
    refuse_unlearnt(frozen, {"down1_conv", "down1_norm"})
    with pytest.raises(SemsegError, match="`freeze`: down1_norm would keep their random weights for ever; expected"):
        refuse_unlearnt(frozen, {"down1_conv"})


# ---------------------------------------------------------------------------------------------------- early stop


@pytest.mark.plain
@pytest.mark.parametrize(("patience", "scores", "ends_after"), [
    (2, [0.5, 0.4, 0.6, 0.6, 0.5, 0.9], 5), (1, [0.5, 0.5], 2), (None, [0.5, 0.4, 0.3], 0), (3, [0.5, 0.4, 0.3], 0),
])  # fmt: skip
def test_a_training_ends_when_it_gets_no_better(tmp_path, patience, scores, ends_after):
    model = small(2)
    model.stop_training = False
    keeper = KeepBest(model, tmp_path / "model.keras")
    keeper.save = lambda: None
    early = StopEarly(keeper, patience)
    early.set_model(model)
    ended = []
    for epoch, score in enumerate(scores):
        keeper.on_epoch_end(epoch, {"val_mean_iou": score})
        early.on_epoch_end(epoch)
        ended += [epoch + 1] if model.stop_training else []
    assert (ended or [0])[0] == ends_after
    again = KeepBest(model, tmp_path / "model.keras")  # as a run that was cut there goes on
    again.restore([{"epoch": i + 1, "val_mean_iou": score} for i, score in enumerate(scores)], None)
    assert StopEarly(again, patience).ends_after(len(scores)) == early.ends_after(len(scores))


# --------------------------------------------------------------------------------------------- from the command line

SMALL = ("--image-size", "32", "--filters", "2", "--cache", "none", "--augment", "none", "--batch-size", "4")


class Power(BaseException):
    """Fails."""


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Data of 19 and of 4 classes, and a run on the former."""
    folder = tmp_path_factory.mktemp("places")
    make_pairs(folder / "pairs", train=8, val=2)
    make_folder(folder / "folder")
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        assert main(["--data", str(folder / "pairs"), *SMALL, "--epochs", "1", "--output", str(folder / "first")]) == 0
    return folder


def quicken(patch):
    """Scores and pages are left out."""
    patch.setattr(train, "_finish", lambda *_: None)
    patch.setattr(train, "_draw_before", lambda *_: None)


@pytest.mark.plain
def test_a_run_starts_from_another_and_goes_on_frozen_after_a_cut(places, tmp_path, monkeypatch, capsys):
    quicken(monkeypatch)
    flags = ["--data", str(places / "folder"), *SMALL, "--epochs", "2", "--keep", "last", "--average", "--early-stop",
             "2", "--init", str(places / "first"), "--freeze", "encoder"]  # fmt: skip
    assert main([*flags, "--output", str(tmp_path / "whole")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "unet_model.keras: took 40 of 41 layers; not: logits (19 classes there, 4 here)" in said
    assert "averaged mean IoU 0." in said
    cut_after(monkeypatch, 3)  # of the second epoch
    with pytest.raises(Power):
        main([*flags, "--checkpoint-minutes", "0", "--output", str(tmp_path / "cut")])
    monkeypatch.undo()
    quicken(monkeypatch)
    assert main(["--resume", str(tmp_path / "cut"), "--init", "elsewhere"]) == 2
    assert "and --init; give only one of them" in capsys.readouterr().err
    assert main([*flags, "--output", str(tmp_path / "cut")]) == 0
    assert "goes on" in capsys.readouterr().out
    for name in ("unet_last.keras", "unet_model.keras"):
        whole, cut = (keras.saving.load_model(tmp_path / each / name) for each in ("whole", "cut"))
        for ours, theirs in zip(whole.get_weights(), cut.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    source = keras.saving.load_model(places / "first" / "unet_model.keras")
    for layer in (layer for level in encoder_levels(source) for layer in level):
        for ours, theirs in zip(layer.get_weights(), cut.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    for each in ("whole", "cut"):
        record = json.loads((tmp_path / each / "config.json").read_text())["facts"]["init"]
        assert record["path"] == str(places / "first" / "unet_model.keras") and len(record["sha256"]) == 64


def cut_after(patch, batches):
    left, after = iter(range(batches - 1, -1, -1)), SaveState.on_train_batch_end

    def end(self, batch, logs=None):
        after(self, batch, logs)
        if next(left) == 0:
            self.wait()
            raise Power

    patch.setattr(SaveState, "on_train_batch_end", end)


@pytest.mark.plain
@pytest.mark.parametrize(("flags", "code", "expected"), [
    (["--freeze", "encoder"], 2, "--freeze: down1_conv1, down1_norm1, down1_conv2 and 17 more would keep their random"),
    (["--freeze", "6", "--init", "first"], 2, "--freeze: got 6, and the encoder of unet has 5 levels"),
    (["--freeze", "0"], 2, "--freeze: got '0'; expected none, encoder, or a number of its levels"),
    (["--freeze", "decoder"], 2, "--freeze: got 'decoder'; expected none, encoder"),
    (["--init", "nowhere"], 4, "nowhere: no such file; give a model's file, or the folder of a finished run"),
    (["--init", "first", "--filters", "3"], 2, "--init: no layer of that unet fits this unet: down1_conv1 "),
    (["--early-stop", "0"], 2, "--early-stop: got 0; expected a whole number of at least 1"),
    *((["--minutes", text], 2, f"--minutes: got {shown}; expected a number above 0")
      for text, shown in (("0", "0.0"), ("-1", "-1.0"), ("nan", "nan"), ("inf", "inf"))),
    (["--minutes", "3", "--epochs", "4"], 2, "--minutes: got 3 and --epochs 4; give only one of them"),
])  # fmt: skip
def test_bad_input_is_one_line(places, monkeypatch, capsys, flags, code, expected):
    monkeypatch.chdir(places)
    assert main(["--data", "folder", *SMALL, *flags, "--output", "none"]) == code
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1
    assert not (places / "none").exists()


@pytest.mark.plain
def test_early_stop_is_recorded_and_stays_after_a_cut(places, tmp_path, monkeypatch, capsys):
    """A learning rate of next to nothing gets no better."""
    quicken(monkeypatch)
    ended = []
    monkeypatch.setattr(train, "_finish", lambda folder, plan, dataset, model, ending, log: ended.append(ending))
    flags = ["--data", str(places / "folder"), *SMALL, "--epochs", "9", "--early-stop", "2", "--learning-rate", "1e-9",
             "--init", str(places / "first"), "--keep", "last", "--output", str(tmp_path / "run")]  # fmt: skip
    assert main(flags) == 0
    facts, said = ended[0].facts(), " ".join(capsys.readouterr().out.split())
    done = len(ended[0].history)
    assert done == facts["best_epoch"] + 2 < 9
    assert facts["early_stop"] == f"after epoch {done} of 9: 2 epochs without a better validation than that of epoch " \
        f"{facts['best_epoch']}" and facts["early_stop"] in said  # fmt: skip
    assert Checkpoints(tmp_path / "run" / "checkpoints").last().epoch == done
    spent = ended[0].spent
    assert spent.photos == done * Run(tmp_path / "run").facts["samples"]["train"] and not spent.goes_on
    assert 0 < spent.seconds <= ended[0].seconds and spent.cpu_seconds > 0 and facts["spent"] == spent.to_dict()
    assert main(flags) == 0  # its last lines were never written: nothing is trained any more
    assert len(ended[1].history) == done and ended[1].spent is None


@pytest.mark.plain
def test_endings_are_told_in_words():
    from semseg.training.ending import Ending

    history = [{"epoch": i + 1, "val_mean_iou": score} for i, score in enumerate((0.5, 0.7, 0.6))]
    config = replace(CONFIG, epochs=3, minutes=0.5)
    plain = Ending(history, config, 20.0)
    assert (plain.length, plain.weights, list(plain.lines())) == ("3 epochs in 20 of 30 s", "weights of epoch 2", [])
    averaged = Ending(history, replace(config, minutes=None), 20.0, Averaged(0.71, 0.7))
    assert averaged.facts()["weights"] == "averaged weights" and averaged.length == "3 epochs in 20 s"
    expected = "mean IoU 0.7100 on validation, better than any epoch's, and kept (0.7000)"
    assert list(averaged.lines()) == [("averaged", expected)]
    lost = Ending(history, config, 20.0, Averaged(0.7, 0.7))
    assert "no better than the best epoch's, and not kept" in lost.facts()["averaged"]
