"""The Dockerfile, as far as it can be judged without an engine: its files, its mounts, and the manual's commands."""

import fnmatch
import json
import re
import shlex
import tomllib
from itertools import pairwise

import pytest
import yaml
from helpers import REPOSITORY

from semseg.cli.flags import build_parser
from semseg.runs.config import RunConfig

pytestmark = pytest.mark.plain

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
PAGE = (REPOSITORY / "docs" / "container.md").read_text(encoding="utf-8").replace("\\\n", " ")
COMMANDS = [shlex.split(line, comments=True) for line in PAGE.splitlines() if line.startswith("docker run")]


def instructions(name):
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)


def mounts(words):
    return [word.split(":")[1] for flag, word in pairwise(words) if flag == "-v"]


def arguments(words):
    return words[words.index("semseg") + 1 :]


def test_what_is_copied_exists_and_is_all_that_the_build_is_sent():
    copied = [source for line in instructions("COPY") for source in line.split()[:-1]]
    assert all((REPOSITORY / source).exists() for source in copied)
    lines = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*" and sorted(copied) == sorted(line[1:] for line in lines if line[0] == "!")


def test_what_the_package_is_built_from_is_copied():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    needed = [project["project"]["readme"], *project["project"]["license-files"], "requirements.txt"]
    copied = " ".join(instructions("COPY"))
    assert all(name in copied for name in needed)
    (entry,) = map(json.loads, instructions("ENTRYPOINT"))
    assert entry == [*project["project"]["scripts"]] == ["semseg"]


def test_it_runs_as_an_ordinary_user_who_may_write_where_results_go():
    assert instructions("USER") == ["1000:1000"]
    made = instructions("RUN")[-1].split("install -d -m 1777 ")[1].split()
    (volumes,) = map(json.loads, instructions("VOLUME"))
    assert set(volumes) <= set(made)


def test_the_manuals_commands_mount_what_the_image_has_and_name_no_other_folder():
    (volumes,) = map(json.loads, instructions("VOLUME"))
    assert COMMANDS
    for words in COMMANDS:
        assert set(mounts(words)) <= set(volumes)
        named = [word for word in arguments(words) if word.startswith("/")]
        assert all(any(fnmatch.fnmatch(word, f"{mount}*") for mount in mounts(words)) for word in named)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: arguments(words)[0])
def test_the_manuals_commands_are_understood(words):
    parsed = build_parser().parse_args(arguments(words))
    output = getattr(parsed, "output", RunConfig.output)
    assert output.startswith("outputs")  # below the working directory, where a volume lies


def test_compose_serves_what_the_image_has_to_this_computer_alone():
    services = yaml.safe_load((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    (volumes,) = map(json.loads, instructions("VOLUME"))
    assert {name: service["profiles"] for name, service in services.items()} == {"cpu": ["cpu"], "gpu": ["gpu"]}
    for service in services.values():
        parsed = build_parser().parse_args(service["command"])
        assert parsed.host == "0.0.0.0" and parsed.token_file == f"/run/secrets/{service['secrets'][0]}"
        assert service["ports"] == [f"127.0.0.1:{parsed.port}:{parsed.port}"]
        assert {volume.split(":")[1] for volume in service["volumes"]} <= set(volumes)
        assert f":{parsed.port}/healthz" in service["healthcheck"]["test"][-1]
    (device,) = services["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
