"""`python -m semseg predict --ray`: the parts of the photos as tasks of a Ray cluster."""

import argparse
from contextlib import closing
from pathlib import Path

from semseg.backend.ray_cluster import Cluster, ray_cluster
from semseg.cli.console import Progress, say_about
from semseg.cli.predict import check_flags, photos_and_video
from semseg.cli.workers import Part, part_of_worker
from semseg.errors import DataError, ResourceError, SemsegError
from semseg.files import check_output
from semseg.images.addresses import is_address
from semseg.inference.predictions import supervise

_OF_PHOTOS = ("skipped", "tiles")  # topics of what is said in each part; the others stand in all of them
_PER_WORKER = 4  # parts, so that one that is slow keeps few photos from the others
_PHOTOS = 1000  # in a part at most, for workers that are still to come
_MOST_PARTS = 256


def run(arguments: argparse.Namespace) -> None:
    """Has a cluster predict what the flags name, and says what its workers say."""
    if arguments.shard is not None:
        raise SemsegError(f"`ray`: makes the parts itself; leave out `shard` {arguments.shard}")
    if is_address(arguments.output):
        raise SemsegError(
            "`ray`: its workers write into a folder that all of them see; give `output` one, not an address"
        )
    check_flags(arguments)
    photos, _ = photos_and_video(arguments)
    output = Path(arguments.output)
    check_output(output)
    with ray_cluster(arguments.ray) as cluster, supervise(output) as (token, begun):
        workers = cluster.at_once(arguments.workers)
        count = begun or parts_of(len(photos), workers)
        say_about("photos", f"{len(photos)} in {arguments.what}")
        say_about("ray", f"{cluster}: {count} parts, {min(count, workers)} at once")
        skipped = _predict(arguments, cluster, token, count, len(photos))
    if skipped:
        raise DataError(
            f"{arguments.what}: {skipped} of {len(photos)} photos cannot be used and were skipped; replace or remove "
            "them and run the same command again"
        )


def parts_of(photos: int, workers: int) -> int:
    """How many parts: a few for each worker that there is, and enough for those that a cluster may still start.

    Example:
        >>> parts_of(3, 2), parts_of(200, 2), parts_of(50_000, 2), parts_of(1_000_000, 2)
        (3, 8, 50, 256)
    """
    return min(photos, max(_PER_WORKER * workers, min(_MOST_PARTS, photos // _PHOTOS)))


def _predict(arguments: argparse.Namespace, cluster: Cluster, token: str, count: int, total: int) -> int:
    """Has all parts predicted; returns how many photos were skipped."""
    options = {name: value for name, value in vars(arguments).items() if name not in ("parser", "stopping", "ray")}
    options |= {name: _everywhere(options[name]) for name in ("model", "what", "output")}
    cores = cluster.num_cpus(arguments.workers)
    tasks = {number: (options, f"{number}/{count}", token, cores) for number in range(1, count + 1)}
    skipped, failed, done = 0, 0, 0
    results = cluster.results(part_of_worker, tasks, arguments.workers)
    try:
        with Progress("predicting") as progress, closing(results):
            for number, part in results:
                progress.clear()
                if isinstance(part, ResourceError):
                    part = Part("", [], str(part), part.exit_code)
                skipped += _say(part, first=not done)
                done += 1
                if part.code and not _goes_on(part):
                    raise _error(f"{_where(part)}{part.message}", part.code)
                if part.code == ResourceError.exit_code:
                    say_about("failed", f"part {number}/{count}: {_where(part)}{part.message}")
                    failed += 1
                progress.show(done * total // count, total, f"{done} of {count} parts")
    except KeyboardInterrupt as error:  # whatever asked: Ray makes one of every signal
        say_about("stopped", "the same command goes on from here")
        raise (arguments.stopping.request or error) from None
    if failed:
        raise ResourceError(f"{failed} of {count} parts failed; the same command goes on with them")
    return skipped


def _say(part: Part, first: bool) -> int:
    """Says what a part has to say that others have not said; returns how many photos it skipped."""
    topics = [topic for topic, _ in part.lines]
    merged = topics.index("merged") if "merged" in topics else len(topics)
    wanted = (*_OF_PHOTOS, *(("model", "certainty") if first else ()))
    for topic, text in [*(line for line in part.lines[:merged] if line[0] in wanted), *part.lines[merged:]]:
        say_about(topic, text)
    return topics.count("skipped")


def _goes_on(part: Part) -> bool:
    """Whether other parts may fare better."""
    return part.code == ResourceError.exit_code or any(topic == "skipped" for topic, _ in part.lines)


def _where(part: Part) -> str:
    return f"on {part.host}: " if part.host else ""


def _error(message: str, code: int) -> SemsegError:
    error = SemsegError(message)
    error.exit_code = code
    return error


def _everywhere(path: str) -> str:
    """A path from the root on: workers may stand in other folders."""
    return path if "://" in path else str(Path(path).absolute())
