"""The page about a run, or about several: one HTML file that loads nothing from anywhere."""

import base64
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from semseg import IGNORE
from semseg.files import replacing
from semseg.labels.legend import drawable
from semseg.labels.painting import paint_errors, stripes
from semseg.labels.palettes import Palette
from semseg.report.charts import Line, line_chart
from semseg.runs.pictures import BEST, SPREAD, UNSURE, WORST, Picture, ids_image

TEMPLATES = Path(__file__).parent / "templates"
GROUP_NAMES = {SPREAD: "Cross-section", WORST: "Worst", BEST: "Best", UNSURE: "Least certain"}
HEADLINES = {  # score of metrics.json: its name, and what it says
    "macro_iou": ("Mean IoU", "overlap of prediction and truth, mean over the classes"),
    "accuracy": ("Accuracy", "share of the pixels that are right"),
    "macro_dice": ("Mean Dice", "as IoU, milder on small overlaps"),
    "macro_boundary_iou": ("Boundary IoU", "the same near borders between classes"),
    "calibration_error": ("Calibration error", "gap between how sure it is and how often it is right"),
}
CLASS_COLUMNS = {
    "iou": "IoU", "dice": "Dice", "precision": "Precision", "sensitivity": "Sensitivity",
    "specificity": "Specificity", "boundary_iou": "Boundary IoU", "boundary_f": "Boundary F",
}  # fmt: skip
CURVES = {
    "mean_iou": "Mean IoU", "loss": "Loss", "accuracy": "Pixel accuracy", "learning_rate": "Learning rate",
}  # fmt: skip
SERIES = "abcdefgh"  # the page's colours of series
NO_VALUE = "\N{EN DASH}"  # in place of a score that does not exist
_MAX_DRAWING_WIDTH = 1400  # pixels of a drawing


@dataclass(frozen=True)
class RunFacts:
    """What a page says about one run: plain values from the files in its folder.

    Attributes:
        name: What to call it.
        photos: On how many it was judged.
        metrics: All of metrics.json.
        history: The rows of results.csv.
        settings: What the run was asked to do, by name.
        environment: What it ran on, by name.
        data: What the data were, by name.
        palette: Names and colours of the classes.
        class_shares: Each class's share of the truth that it was judged on, 0 to 1.
        matrix: int64 `(K, K)`, rows truth, columns prediction; None where the run did not keep it.
        pictures: Photos with truth and prediction.
        drawings: `"architecture"` and `"batch"`: pictures in the run folder, as far as they are there.
        notes: What should be known of the data, a line each.
        commands: What can be done next, and the command that does it.
        missing: What the page would show of a newer run, in words.
    """

    name: str
    photos: int
    metrics: Mapping
    history: Sequence[Mapping[str, float]]
    settings: Mapping[str, str]
    environment: Mapping[str, str]
    data: Mapping[str, str]
    palette: Palette
    class_shares: Sequence[float]
    matrix: np.ndarray | None = None
    pictures: Sequence[Picture] = ()
    drawings: Mapping[str, Path] = field(default_factory=dict)
    notes: Sequence[str] = ()
    commands: Sequence[tuple[str, str]] = ()
    missing: Sequence[str] = ()

    @cached_property
    def headlines(self) -> list[dict]:
        """Name, value, interval and meaning of the scores at the top."""
        rows = []
        for score, (name, meaning) in HEADLINES.items():
            if score in self.metrics:
                interval = self.metrics.get("intervals", {}).get(score)
                interval = interval if interval and None not in interval else None
                rows.append({"name": name, "value": self.metrics[score], "interval": interval, "meaning": meaning})
        return rows

    @cached_property
    def changes(self) -> list[dict]:
        """Name, colour and IoU before and after of the classes, where the run was compared with the one before it."""
        before = self.metrics.get("before", {}).get("iou", {})
        rows = [
            {**entry, "before": before.get(entry["name"]), "after": entry["scores"]["iou"]} for entry in self.classes
        ]
        return sorted(rows, key=lambda row: (row["before"] or 0) - (row["after"] or 0)) if before else []

    @cached_property
    def classes(self) -> list[dict]:
        """Name, colour, share and scores of each class."""
        per_class = self.metrics["per_class"]
        return [
            {
                "name": name,
                "color": css_color(color),
                "share": share,
                "scores": {score: per_class.get(name, {}).get(score) for score in CLASS_COLUMNS},
            }
            for name, color, share in zip(self.palette.names, self.palette.colors, self.class_shares, strict=True)
        ]

    @property
    def confusion(self) -> list[dict]:
        """Of each true class that occurs, the shares predicted as each class."""
        totals = self.matrix.sum(axis=1)
        return [
            {**entry, "shares": (row / total).tolist()}
            for entry, row, total in zip(self.classes, self.matrix, totals, strict=True)
            if total
        ]

    @property
    def curves(self) -> list[dict]:
        """A chart for each of the columns of results.csv that there are."""
        charts = []
        for column, title in CURVES.items():
            kinds = {"training": (column, "b"), "validation": (f"val_{column}", "a")}
            if column == "learning_rate":
                kinds = {title: (column, "ink")}
            lines = [
                Line(kind, [row[name] for row in self.history], style)
                for kind, (name, style) in kinds.items()
                if name in self.history[0]
            ]
            if lines:
                chart = line_chart(lines, title, self.metrics.get("best_epoch"))
                charts.append({"title": title, "svg": chart, "lines": lines if len(lines) > 1 else []})
        return charts


def save_run_page(run: RunFacts, path: str | Path) -> Path:
    """Writes the page about one run.

    Args:
        run: What it says.
        path: The HTML file.

    Returns:
        The path.
    """
    shots = [_photo_entry(picture, run.palette) for picture in run.pictures]
    groups = {key: name for key, name in GROUP_NAMES.items() if any(key in shot["ranks"] for shot in shots)}
    drawings = {kind: _drawing_entry(source) for kind, source in run.drawings.items()}
    return _write(
        path, "run.html", title=run.name, run=run, shots=shots, groups=groups, drawings=drawings,
        columns=_score_columns(run), shown=_legend(run, shots),
    )  # fmt: skip


def save_runs_page(runs: Sequence[RunFacts], path: str | Path, commands: Sequence[tuple[str, str]] = ()) -> Path:
    """Writes one page about several runs, side by side.

    Args:
        runs: At least two, of different names.
        path: The HTML file.
        commands: As in `RunFacts`, about all of them.

    Returns:
        The path.
    """
    same_classes = all(run.palette.names == runs[0].palette.names for run in runs)
    judged = {(run.metrics["split"], run.photos) for run in runs}
    shots = _shared_photo_entries(runs) if same_classes else []
    settings = [{**run.settings, **run.environment} for run in runs]
    return _write(
        path, "runs.html", title=f"{len(runs)} runs side by side", runs=runs, charts=_overlaid_curves(runs),
        series=SERIES, same_classes=same_classes, same_split=len(judged) == 1, shots=shots,
        shown=_legend(runs[0], shots),
        layers=[layer[:2] for layer in shots[0]["layers"]] if shots else [], headlines=HEADLINES,
        settings=settings, differing=_differing(settings), commands=commands,
    )  # fmt: skip


def save_folds_page(
    runs: Sequence[RunFacts],
    metrics: Mapping,
    path: str | Path,
    *,
    links: Mapping[str, str],
    commands: Sequence[tuple[str, str]] = (),
) -> Path:
    """Writes one page about the folds of a cross-validation, and their scores together.

    Args:
        runs: The folds, at least two, of the same classes.
        metrics: The scores over all photos, as of one run, with `over_folds`: mean and `sd` of each headline score.
        path: The HTML file.
        links: The address of each fold's own page, by its name.
        commands: As in `RunFacts`, about all of them.

    Returns:
        The path.
    """
    settings = [{**run.settings, **run.environment} for run in runs]
    return _write(
        path, "folds.html", title=f"Cross-validation in {len(runs)} folds", runs=runs, metrics=metrics, links=links,
        charts=_overlaid_curves(runs), series=SERIES, headlines=HEADLINES, settings=settings,
        differing=_differing(settings), commands=commands,
    )  # fmt: skip


def _differing(settings: Sequence[Mapping[str, str]]) -> dict[str, bool]:
    """Of each setting that any of the runs has, whether they differ in it."""
    names = dict.fromkeys(name for run in settings for name in run)
    return {name: len({run.get(name) for run in settings}) > 1 for name in names}


def _legend(run: RunFacts, shots: Sequence[Mapping]) -> list[dict]:
    """The classes that the photos show."""
    return [run.classes[i] for i in sorted({i for shot in shots for i in shot["classes"]})]


def _overlaid_curves(runs: Sequence[RunFacts]) -> list[dict]:
    """The validation's curves of all runs, a colour each."""
    charts = []
    for column, title in (("val_mean_iou", "Validation mean IoU"), ("val_loss", "Validation loss"),
                          ("val_accuracy", "Validation accuracy"), ("loss", "Training loss")):  # fmt: skip
        lines = [
            Line(run.name, [row[column] for row in run.history], SERIES[i % len(SERIES)])
            for i, run in enumerate(runs)
            if column in run.history[0]
        ]
        if lines:
            charts.append({"title": title, "svg": line_chart(lines, title), "lines": lines})
    return charts


def _score_columns(run: RunFacts) -> dict[str, str]:
    """The class scores that the run has."""
    known = run.metrics["per_class"].values()
    return {score: name for score, name in CLASS_COLUMNS.items() if all(score in scores for scores in known)}


def _photo_entry(picture: Picture, palette: Palette) -> dict:
    """A photo with its layers, as they are put into the page."""
    errors = paint_errors(picture.photo, picture.truth, picture.prediction)
    layers = [
        ("photo", "Photo", data_address(Image.fromarray(picture.photo), "JPEG")),
        ("truth", "Truth", _ids_address(picture.truth, palette)),
        ("prediction", "Prediction", _ids_address(picture.prediction, palette)),
        ("errors", "Errors", data_address(Image.fromarray(errors), "JPEG")),
    ]
    return {**_caption(picture), "layers": layers, "classes": _classes_in(palette, picture.truth, picture.prediction)}


def _caption(picture: Picture) -> dict:
    height, width = picture.truth.shape
    scores = {name: picture.scores.get(name) for name in ("iou", "accuracy", "confidence")}
    return {"name": drawable(picture.name), "scores": scores, "ranks": picture.ranks, "size": (width, height)}


def _shared_photo_entries(runs: Sequence[RunFacts]) -> list[dict]:
    """Photos that all runs have kept with the same truth, with the prediction of each."""
    albums = [{picture.name: picture for picture in run.pictures} for run in runs]
    shots = []
    for name, first in albums[0].items():
        same = [album[name] for album in albums if name in album and np.array_equal(album[name].truth, first.truth)]
        if len(same) == len(runs):
            shots.append(_shared_photo_entry([run.name for run in runs], same, runs[0].palette))
    return shots


def _shared_photo_entry(names: Sequence[str], pictures: Sequence[Picture], palette: Palette) -> dict:
    """A photo with its truth and the prediction of each run, whose names are given."""
    first = pictures[0]
    layers = [
        ("photo", "Photo", data_address(Image.fromarray(first.photo), "JPEG")),
        ("truth", "Truth", _ids_address(first.truth, palette)),
    ]
    for number, (name, picture) in enumerate(zip(names, pictures, strict=True), start=1):
        layers.append((f"run{number}", name, _ids_address(picture.prediction, palette)))
    scores = [(name, picture.scores) for name, picture in zip(names, pictures, strict=True)]
    classes = _classes_in(palette, first.truth, *(picture.prediction for picture in pictures))
    return {**_caption(first), "layers": layers, "by_run": scores, "classes": classes}


def _classes_in(palette: Palette, *masks: np.ndarray) -> list[int]:
    counts = sum(np.bincount(mask.ravel(), minlength=256) for mask in masks)
    return np.flatnonzero(counts[: palette.num_classes]).tolist()


def _ids_address(ids: np.ndarray, palette: Palette) -> str:
    """Ids in their colours, what is ignored in stripes of the two greys that the palette ends with."""
    ids = np.where((ids == IGNORE) & stripes(ids.shape), IGNORE - 1, ids).astype(np.uint8)
    return data_address(ids_image(ids, palette), "PNG")


def _drawing_entry(path: Path) -> dict:
    """A drawing of the run, in colours enough for it and no wider than a page shows."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    image.thumbnail((_MAX_DRAWING_WIDTH, 4 * _MAX_DRAWING_WIDTH))
    is_photo = len(image.getcolors(1 << 24) or ()) > 20_000
    size, form = image.size, "JPEG" if is_photo else "PNG"
    if not is_photo:
        image = image.quantize(128, Image.Quantize.MAXCOVERAGE)  # keeps the colours of thin arrows, too
    return {"source": data_address(image, form), "size": size}


def data_address(image: Image.Image, form: str) -> str:
    """A picture as the address of itself, for a page that loads nothing.

    Args:
        image: The picture.
        form: `"PNG"` or `"JPEG"`.

    Returns:
        `data:image/png;base64,...`.
    """
    data = io.BytesIO()
    image.save(data, form, **({"quality": 80} if form == "JPEG" else {"optimize": True}))
    return f"data:image/{form.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"


def css_color(color: Sequence[int]) -> str:
    """An RGB colour, 0 to 255, as `#rrggbb`.

    Example:
        >>> css_color((255, 128, 0))
        '#ff8000'
    """
    return "#" + bytes(color).hex()


def _score(value: float | None, digits: int = 3) -> str:
    """A score; a dash where there is none."""
    return NO_VALUE if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _percent(share: float | None) -> str:
    """A share, 0 to 1, in percent; a dash where there is none."""
    if share is None:
        return NO_VALUE
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{share:.1%}" if share else "0%"


def _write(path: str | Path, template: str, **values: object) -> Path:
    """Fills a template in. The page may run its own script, and no other, even if a name were to slip through."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"score": _score, "percent": _percent}
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = Markup((TEMPLATES / "page.css").read_text(encoding="utf-8"))
    text = environment.get_template(template).render(
        **values, style=style, script=Markup(script), script_digest=digest, none_there=NO_VALUE
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace", newline="\n")
    return Path(path)
