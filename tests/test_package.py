"""What pip, type checkers and editors see: metadata, extras, what the wheel holds, and the stub of the public names.

`python tests/test_package.py` writes the stub anew.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import import_module

import pytest
from packaging.requirements import Requirement

import semseg
from semseg.errors import MissingPackageError, is_installed, pip_install, require

try:
    from helpers import REPOSITORY
except ModuleNotFoundError:  # run as a script
    from tests.helpers import REPOSITORY

pytestmark = pytest.mark.plain

STUB = REPOSITORY / "semseg" / "__init__.pyi"
CONFIGURATION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = CONFIGURATION["project"]
EXTRAS = PROJECT["optional-dependencies"]
BACKENDS = {"torch", "tensorflow", "jax"}
IMPORTED_AS = {  # where it differs from what pip calls it, or comes with another
    "cv2": "opencv-python-headless", "PIL": "pillow", "ai_edge_litert": "ai-edge-litert", "markupsafe": "jinja2",
    "google": "tensorflow", "yaml": "pyyaml",
}  # fmt: skip


def stub_text():
    """What `semseg/__init__.pyi` has to hold."""
    lines = [
        "# `python tests/test_package.py` writes this from the names in __init__.py.",
        "from typing import Final",
        "",
    ]
    for name, room in sorted(semseg._ROOM_OF_NAME.items(), key=lambda item: (item[1], item[0])):
        lines.append(f"from semseg.{room} import {name} as {name}")
    return "\n".join([*lines, "", "__version__: Final[str]", f"IGNORE: Final = {semseg.IGNORE}", ""])


class TestStub:
    def test_it_gives_every_public_name_from_the_module_that_holds_it(self):
        given = {"IGNORE"}
        for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module.startswith("semseg."):
                for alias in node.names:
                    assert alias.asname == alias.name, "type checkers take an import without `as` for private"
                    room = semseg._ROOM_OF_NAME.get(alias.name)
                    assert node.module == f"semseg.{room}", f"{alias.name}: run `python tests/test_package.py`"
                    given.add(alias.name)
        assert given == set(semseg.__all__), "run `python tests/test_package.py`, which writes the stub anew"

    def test_its_value_of_ignore_is_the_real_one(self):
        assert f"IGNORE: Final = {semseg.IGNORE}\n" in STUB.read_text(encoding="utf-8")


def requirements(lines):
    return [Requirement(line) for line in lines]


def pip_names(extra=None):
    """The packages of the base, or of an extra and those it names."""
    names = set()
    for requirement in requirements(EXTRAS[extra] if extra else PROJECT["dependencies"]):
        inner = (
            [pip_names(other) for other in requirement.extras] if requirement.name == "semseg" else [{requirement.name}]
        )
        names |= set().union(*inner)
    return names


class TestDependencies:
    def test_the_base_and_all_bring_no_backend_so_that_a_machines_own_stays(self):
        assert not BACKENDS & (pip_names() | pip_names("all"))
        assert all(pip_names(backend) == {backend} for backend in BACKENDS)

    def test_an_extra_has_lower_bounds_only_unless_it_is_data_known_by_its_checksum(self):
        for extra, lines in EXTRAS.items():
            for requirement in requirements(lines):
                own = requirement.name == "semseg"
                operator = "==" if extra == "pretrained" else ">="
                assert own or {clause.operator for clause in requirement.specifier} == {operator}, extra

    def test_the_versions_that_the_tests_run_with_are_allowed(self):
        from importlib.metadata import version

        for requirement in requirements([*PROJECT["dependencies"], *(EXTRAS[backend][0] for backend in BACKENDS)]):
            assert requirement.specifier.contains(version(requirement.name).split("+")[0]), requirement

    def test_requirements_txt_pins_keras_and_the_backends_and_has_all_of_the_base(self):
        text = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8")
        locked = {requirement.name: requirement.specifier for requirement in requirements(text.splitlines())}
        assert pip_names() <= set(locked)
        assert all(str(locked[name]).startswith("==") for name in ("keras", *BACKENDS))

    def test_whatever_is_imported_stands_in_pyproject(self):
        declared = pip_names().union(*map(pip_names, EXTRAS))
        for path in (REPOSITORY / "semseg").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    modules = [node.module]
                for module in {module.split(".")[0] for module in modules} - sys.stdlib_module_names - {"semseg"}:
                    assert IMPORTED_AS.get(module, module) in declared, f"{path} imports {module}"

    def test_what_a_format_needs_is_in_the_extra_that_its_message_names(self):
        from semseg.export.formats import FORMATS
        from semseg.inference.runtimes import RUNTIMES

        for name, wanted in FORMATS.items():
            for packages in wanted.packages.values():
                for module, extra in packages:
                    assert extra is None or IMPORTED_AS.get(module, module) in pip_names(extra), f"{name}: {module}"

        for runtime in RUNTIMES.values():
            assert IMPORTED_AS.get(runtime.module, runtime.module) in pip_names(runtime.extra)


class TestMissingPackages:
    def test_nothing_is_said_of_what_is_installed(self):
        require("x", "serve", "json", "semseg.errors")

    @pytest.mark.parametrize(
        ("modules", "listed"), [(["nothing_a"], "nothing_a"), (["nothing_a", "json", "no.b"], "nothing_a and no.b")]
    )
    def test_the_message_is_one_line_with_the_pip_command_and_the_exit_code_is_2(self, modules, listed):
        with pytest.raises(MissingPackageError) as caught:
            require("photo.png", "geo", *modules)
        assert str(caught.value) == f"photo.png: needs {listed}; run {pip_install('geo')}"
        assert caught.value.exit_code == 2

    def test_without_an_extra_the_package_itself_is_named(self):
        with pytest.raises(MissingPackageError, match=r"^x: needs nothing_a; run pip install nothing_a$"):
            require("x", None, "nothing_a")

    def test_the_command_suits_a_checkout_and_an_installed_package(self, monkeypatch):
        assert pip_install("geo") == "pip install -e '.[geo]'"
        monkeypatch.setattr("semseg.errors._IN_CHECKOUT", False)
        assert pip_install("geo") == "pip install 'semseg[geo]'"

    def test_it_is_not_imported_to_be_found(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "tomllib", None)
        assert not is_installed("tomllib")
        monkeypatch.delitem(sys.modules, "tomllib")
        assert is_installed("tomllib") and "tomllib" not in sys.modules

    def test_every_extra_that_a_message_names_exists(self):
        for path in (REPOSITORY / "semseg").rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for extra in re.findall(r"\b(?:pip_install\(|require\([^,()]+(?:\([^()]*\))?, )\"(\w+)\"", text):
                assert extra in EXTRAS, path


def run_without(hidden, *arguments):
    """Runs the command line in a Python that finds none of the hidden modules."""
    code = f"import sys; sys.modules.update(dict.fromkeys({sorted(hidden)!r})); from semseg.cli import commands; "
    code += "sys.exit(commands())"
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


class TestCommandsWithAnExtra:
    @pytest.mark.parametrize(
        ("command", "arguments"), [("compare", ["--models", "unet,resunet"]), ("serve", ["x.onnx"])]
    )
    def test_they_say_what_to_install_before_anything_takes_time(self, command, arguments):
        (hidden, *_) = pip_names(command)
        done = run_without({hidden}, command, *arguments)
        (line,) = done.stderr.splitlines()
        assert line == f"error: {command}: needs {hidden}; run {pip_install(command)}" and done.returncode == 2


class TestWithoutBackend:
    @pytest.mark.parametrize(("flag", "answer"), [("--help", "train"), ("--version", semseg.__version__)])
    def test_the_base_alone_answers(self, flag, answer):
        done = run_without(BACKENDS, flag)
        assert done.returncode == 0 and answer in done.stdout and not done.stderr

    def test_training_says_what_to_install(self, tmp_path, pairs):
        done = run_without(BACKENDS, "train", "--data", pairs, "--output", tmp_path / "out", "--epochs", 1)
        (line,) = done.stderr.splitlines()
        assert done.returncode == 2 and f"run {pip_install('torch')}" in line
        assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the wheel and the sdist, built from a copy without a network."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "CHANGELOG.md", "CITATION.cff"):
        shutil.copy(REPOSITORY / name, source)
    shutil.copytree(REPOSITORY / "semseg", source / "semseg", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", target, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


class TestDistribution:
    def test_wheel_and_sdist_pass_twine(self, built):
        files = sorted(built.iterdir())
        assert [path.suffix for path in files] == [".whl", ".gz"]
        command = [sys.executable, "-m", "twine", "check", "--strict", *files]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_the_wheel_holds_every_file_of_the_package_and_the_licence(self, built):
        (wheel,) = built.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            held = set(archive.namelist())
        package = REPOSITORY / "semseg"
        own = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        assert {str(path.relative_to(REPOSITORY)) for path in own} <= held
        assert {"semseg/py.typed", "semseg/__init__.pyi", "semseg/serve/page.html"} <= held
        assert any(name.endswith("licenses/LICENSE") for name in held)
        assert not any(name.startswith("tests") for name in held)

    def test_the_metadata_are_those_of_pyproject_with_the_version_of_the_package(self, built):
        (wheel,) = built.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
            lines = archive.read(name).decode().split("\n\n")[0].splitlines()
        assert f"Version: {semseg.__version__}" in lines
        assert {line.split(": ")[1] for line in lines if line.startswith("Provides-Extra")} == set(EXTRAS)
        always = [line.split(": ")[1] for line in lines if line.startswith("Requires-Dist") and "extra ==" not in line]
        assert {requirement.name for requirement in requirements(always)} == pip_names()

    def test_the_sdist_can_be_built_from(self, built):
        (sdist,) = built.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            held = {name.partition("/")[2] for name in archive.getnames()}
        assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "semseg/report/templates/run.html"} <= held


class TestPapers:
    def test_changelog_and_citation_name_this_version(self):
        changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
        versions = re.findall(r"^## \[([^\]]+)\]", changelog, re.MULTILINE)
        assert versions[0] == "Unreleased" and versions[1] == semseg.__version__
        assert re.findall(r"^## .*", changelog, re.MULTILINE)[1].endswith(released())

    def test_the_citation_has_what_its_schema_asks_for(self):
        text = (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
        keys = re.findall(r"^([a-z-]+):", text, re.MULTILINE)
        assert {"cff-version", "message", "title", "authors"} <= set(keys) and len(set(keys)) == len(keys)
        assert re.search(r"^cff-version: 1\.2\.0$", text, re.MULTILINE)
        assert f'version: "{semseg.__version__}"' in text and f"license: {PROJECT['license']}" in text
        assert re.search(r"^authors:\n  - name: ", text, re.MULTILINE)

    def test_contributing_names_every_file_of_tests_and_files_that_exist(self):
        text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
        tests = {path.name for path in (REPOSITORY / "tests").glob("test_*.py")}
        assert set(re.findall(r"\btest_\w+\.py", text)) == tests
        files = re.findall(r"`(\w+(?:/\w+)*\.py)`", text)
        places = (REPOSITORY, REPOSITORY / "semseg", REPOSITORY / "tests")
        assert [name for name in files if not any((place / name).exists() for place in places)] == []

    def test_every_strict_module_exists_and_every_public_module_is_strict(self):
        strict = set(CONFIGURATION["tool"]["mypy"]["modules"])
        assert strict == {"semseg", *(f"semseg.{room}" for room in semseg._ROOM_OF_NAME.values())}
        for module in strict:
            import_module(module)


def released():
    text = (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    return re.search(r'^date-released: "([\d-]+)"$', text, re.MULTILINE)[1]


if __name__ == "__main__":
    STUB.write_text(stub_text(), encoding="utf-8")
