"""Where the packages come from that the README installs: the lock, known holes, and licences."""

import re
import shutil
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from importlib import metadata

import pytest
from helpers import REPOSITORY
from packaging.requirements import Requirement
from packaging.version import Version

pytestmark = pytest.mark.plain

LOCK = REPOSITORY / "requirements.lock"
ADVISORIES = "https://api.osv.dev/v1/query"
# Beyond these a licence asks something of who uses or passes on this package.
ALLOWED = re.compile(
    r"\b(0BSD|Apache|BSD|BSL-1\.0|CC0|HPND|ISC|MIT|MPL|Mozilla Public|PSF|Python Software Foundation|Unlicense|Zlib)"
    r"|NVIDIA"
)
REFUSED = re.compile(
    r"AGPL|Affero|(?<!L)GPL-|General Public License|SSPL|Server Side|Commons Clause|NonCommercial|CC-BY-NC"
)
NAMED_NOWHERE = {"namex": "Apache-2.0"}  # by its repository


def plain_name(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def asked_for():
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip()]


def locked():
    """Name, version and hashes of each entry of the lock."""
    entries = re.split(r"\n(?=[a-z0-9])", LOCK.read_text(encoding="utf-8"))[1:]
    for entry in entries:
        name, version = re.match(r"([\w.-]+)(?:\[[^\]]*\])?==(\S+)", entry).groups()
        yield plain_name(name), Version(version), re.findall(r"--hash=sha256:[0-9a-f]{64}(?= |\n|$)", entry)


def test_the_lock_pins_all_that_is_asked_for_with_hashes():
    entries = list(locked())
    assert all(hashes for _, _, hashes in entries) and len(entries) > 40
    versions = {}
    for name, version, _ in entries:  # some have one version per system
        versions.setdefault(name, []).append(version)
    for wanted in asked_for():
        assert plain_name(wanted.name) in versions, f"{wanted} is not in the lock: make it anew, see its first lines"
        assert all(version in wanted.specifier for version in versions[plain_name(wanted.name)])


def installed():
    """All distributions that the packages of requirements.txt need here; one that is missing is a failure."""
    found, waiting = {}, asked_for()
    while waiting:
        wanted = waiting.pop()
        name = plain_name(wanted.name)
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(wanted.name)
        except metadata.PackageNotFoundError:
            pytest.fail(f"{name} is needed and not installed, so that nobody knows its licence")
        for line in found[name].requires or []:
            further = Requirement(line)
            if further.marker is None or any(further.marker.evaluate({"extra": e}) for e in ("", *wanted.extras)):
                waiting.append(further)
    return found


def licence_of(distribution):
    """What a distribution says of its licence, in one line."""
    fields = distribution.metadata
    said = [fields.get("License-Expression") or ""]
    said += [line for line in fields.get_all("Classifier") or [] if line.startswith("License ::")]
    said += (fields.get("License") or "").strip().splitlines()[:1]
    return "; ".join(filter(None, said))


def test_every_installed_package_has_a_licence_that_may_be_used():
    licences = {name: licence_of(found) or NAMED_NOWHERE.get(name, "") for name, found in installed().items()}
    assert len(licences) > 40
    refused = {name: said for name, said in licences.items() if not ALLOWED.search(said) or REFUSED.search(said)}
    assert not refused


@pytest.mark.parametrize("wanted", tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
                         ["optional-dependencies"]["pretrained"])  # fmt: skip
def test_packages_of_weights_name_their_licence_in_a_file_alone(wanted):
    try:
        found = metadata.distribution(Requirement(wanted).name)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{wanted} is not installed; run pip install -r tests/requirements.txt")
    assert licence_of(found) in ("", "UNKNOWN")
    (licence,) = (path for path in found.files if path.name == "LICENSE")
    assert "Apache License, Version 2.0" in licence.read_text()


@pytest.mark.parametrize("said", ["AGPL-3.0-only", "GNU Affero General Public License v3", "GPL-3.0", "SSPL-1.0", ""])
def test_licences_that_ask_for_more_are_told(said):
    assert not ALLOWED.search(said) or REFUSED.search(said)


def test_no_package_of_the_lock_has_a_known_hole():
    """A package that cannot be looked up is a failure, too: `--strict`."""
    try:
        urllib.request.urlopen(urllib.request.Request(ADVISORIES, data=b'{"package": {}}'), timeout=5).close()
    except urllib.error.HTTPError as error:
        if error.code >= 500 or error.code in (403, 407):
            pytest.skip(f"the service of known holes cannot be asked here: {error}")
    except OSError as error:
        pytest.skip(f"no network to ask for known holes: {error}")
    if not shutil.which("pip-audit", path=sys.prefix + "/bin") and not shutil.which("pip-audit"):
        pytest.fail("pip-audit is not installed; run pip install -r tests/requirements.txt")
    command = ["pip-audit", "--strict", "--disable-pip", "--require-hashes", "-s", "osv", "-r", str(LOCK)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
