"""Videos and cameras: frames in, masks and a video with the classes over it out."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from semseg.errors import DataError, ResourceError
from semseg.files import replacing
from semseg.images.resizing import resize_photo
from semseg.inference.answers import Answers
from semseg.inference.files import OPACITY, Written, map_ahead, write_masks
from semseg.inference.learnt import Look, Watch
from semseg.inference.segmenter import Segmenter, in_batches
from semseg.inference.tiling import resize_bands
from semseg.labels.legend import lay_strip_over, legend, visible_classes
from semseg.labels.painting import overlay
from semseg.labels.palettes import Palette

SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"}
_USUAL_RATE = 25.0  # frames per second, of cameras that do not tell theirs


class Video:
    """A video file or a camera, read frame by frame.

    Args:
        source: The file, or the camera's number.

    Attributes:
        source: As it was given.
        rate: Frames per second.
        frames: How many there should be; 0 if that is not known.
        live: Whether it is a camera, which ends when somebody ends it.

    Raises:
        DataError: It cannot be opened.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "video.avi"
        >>> writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
        >>> _ = writer.write(np.zeros((48, 64, 3), np.uint8))
        >>> writer.release()
        >>> video = Video(path)
        >>> video.rate, video.frames, video.read().shape, video.read() is None
        (10.0, 1, (48, 64, 3), True)
    """

    def __init__(self, source: Path | int):
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong is said in our own words
        self.source, self._capture = source, cv2.VideoCapture()
        try:
            opened = self._capture.open(source if isinstance(source, int) else str(source))
        except cv2.error:  # a number that is too large
            opened = False
        if not opened:
            where = f"camera {source}" if isinstance(source, int) else f"{source}"
            raise DataError(f"{where}: cannot be opened; expected a video that OpenCV reads, or a camera's number")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else _USUAL_RATE
        self.live = isinstance(source, int)
        self.frames = 0 if self.live else max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def read(self) -> np.ndarray | None:
        """The next frame, uint8 RGB `(H, W, 3)`; None after the last."""
        success, frame = self._capture.read()
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if success else None


@dataclass(frozen=True)
class Frame:
    """A frame that was predicted.

    Attributes:
        number: Its place in the video, from 0.
        counts: int64 `(K,)`: pixels of each class.
        unsure: Pixels that got no class, as the network was not sure enough.
        unlike: What is unlike in it to the photos that the network learnt from, in words; else nothing.
    """

    number: int
    counts: np.ndarray
    unsure: int
    unlike: tuple[str, ...] = ()


def predict_video(
    segmenter: Segmenter,
    video: Video,
    *,
    files: Callable[[int], Mapping[str, Path]],
    overlays: Path | None,
    workers: int = 2,
    unsure: float = 0.0,
    answers: Answers | None = None,
) -> Iterator[Frame]:
    """Predicts every frame, seen as the network sees photos, and writes what is wanted of each.

    Args:
        segmenter: The network.
        video: Read to its end, or until nobody asks for more frames; each frame uint8 RGB `(H, W, 3)`.
        files: From a frame's number to its files: see `semseg.inference.files.write_masks`.
        overlays: The video to write, of the same size and rate; None for none.
        workers: Threads that write masks.
        unsure: As in `write_masks`.
        answers: What is wanted of the objects in each frame; None for nothing.

    Yields:
        The frames, in order. The video is there when the iterator has ended; of a camera also when it was closed.

    Raises:
        DataError: There are no frames.
        ResourceError: OpenCV cannot write the video.
    """
    with ExitStack() as stack:
        reader, writers = (stack.enter_context(ThreadPoolExecutor(n)) for n in (1, workers))
        frames = _frames(video, reader, 2 * segmenter.batch_size)
        writer = stack.enter_context(_Writer(overlays, video, segmenter.palette)) if overlays else None

        def write(item: tuple[tuple[int, np.ndarray], np.ndarray, Look]) -> Written:
            (number, photo), logits, _ = item
            size = photo.shape[:2]
            return write_masks(
                resize_bands([logits], size, logits.shape[:2]), size, files(number), segmenter.palette,
                threshold=segmenter.calibration.threshold, unsure=unsure, shown=size, answers=answers,
            )  # fmt: skip

        def seen(frame: tuple[int, np.ndarray]) -> np.ndarray:
            return resize_photo(frame[1], segmenter.image_size)

        number, watch, tiles = -1, Watch(segmenter), None if segmenter.tile else 1
        watched = replace(segmenter, predict_batch=watch.predict_batch)
        if segmenter.tile is None:
            computed = in_batches(watch.predict_batch, enumerate(frames), seen, segmenter.batch_size)
        else:
            computed = ((frame, watched.logits(frame[1])) for frame in enumerate(frames))
        looked = ((frame, logits, watch.next(frame[1].shape[:2], tiles)) for frame, logits in computed)
        for ((number, photo), _, look), written in map_ahead(writers, write, looked, 2 * workers):
            if writer:
                writer.write(photo, written.shown, written.counts)
            doubts = segmenter.learnt.doubts(look, segmenter.bands) if segmenter.learnt else ()
            yield Frame(number, written.counts, written.unsure, tuple(doubts))
        if number < 0:
            raise DataError("the video: holds no frame that can be read; replace it")


def _frames(video: Video, pool: ThreadPoolExecutor, max_ahead: int) -> Iterator[np.ndarray]:
    """Frames, read ahead by a single thread, so that they keep their order."""
    for _, frame in map_ahead(pool, lambda _: video.read(), count(), max_ahead):
        if frame is None:
            return
        yield frame


class _Writer:
    """The frames with their classes over them, as MPEG-4; the legend grows with the classes that were seen."""

    def __init__(self, path: Path, source: Video, palette: Palette):
        self._path, self._source, self._palette = path, source, palette
        self._files, self._video, self._shown_classes = ExitStack(), None, set()

    def __enter__(self) -> "_Writer":
        return self

    def write(self, photo: np.ndarray, ids: np.ndarray, counts: np.ndarray) -> None:
        if self._video is None:
            self._open(photo.shape[:2])
        self._shown_classes.update(visible_classes(counts))
        strip = legend(sorted(self._shown_classes), self._palette, photo.shape[1])
        frame = lay_strip_over(overlay(photo, ids, self._palette, OPACITY), strip)
        self._video.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def _open(self, size: tuple[int, int]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._files.enter_context(replacing(self._path))
        code = cv2.VideoWriter_fourcc(*"mp4v")
        self._video = cv2.VideoWriter(str(temporary), code, self._source.rate, size[::-1])
        if not self._video.isOpened():
            raise ResourceError(f"{self._path}: OpenCV cannot write a video there; use `no_overlays`")

    def __exit__(self, *exception: object) -> None:
        """Ends the file; after an error, or where somebody stopped what has an end, it is removed."""
        if self._video is not None:
            self._video.release()
        if self._source.live and exception[0] in (GeneratorExit, KeyboardInterrupt):
            exception = (None, None, None)
        self._files.__exit__(*exception)
