"""The house: which room may import which, who owns which side effect, and what an import may cost."""

import ast
import importlib
import os
import re
import subprocess
import sys

import pytest
from helpers import REPOSITORY

pytestmark = pytest.mark.plain

PACKAGE = REPOSITORY / "semseg"

# errors and files stand below level 0: every room may use them. `IGNORE` and the version come from the package itself.
LEVELS = [
    {
        "images": set(),
        "labels": {"images"},
        "backend": set(),
        "losses": {"backend"},
        "metrics": {"labels", "backend"},
        "segmentation_model": set(),
        "runs": {"labels"},
    },
    {
        "architectures": {"segmentation_model", "backend"},
        "data": {"images", "labels", "runs"},
        "inference": {"images", "labels", "backend", "segmentation_model", "runs"},
    },
    {
        "evaluation": {"images", "labels", "metrics", "backend", "runs", "data", "inference"},
        "export": {"images", "labels", "metrics", "backend", "runs", "inference"},
        "training": {
            "images", "labels", "backend", "losses", "metrics", "segmentation_model", "runs", "architectures", "data",
        },
    },
    {
        "comparison": {
            "labels", "metrics", "runs", "architectures", "data", "backend", "inference", "training", "evaluation",
        },
        "labelling": {"images", "labels", "metrics", "data", "inference"},
        "report": {"images", "labels", "runs"},
    },
    {"serve": {"images", "labels", "data", "inference"}},
    {"cli": {"*"}},
]  # fmt: skip
FACES = {  # names that the mission gives, thin over the rooms
    "utils_func": {"images", "labels"},
    "model_arch": {"architectures"},
    "errors": set(),
    "files": set(),
    "__main__": {"cli"},
}
MAY_IMPORT = {**FACES, **{room: allowed for level in LEVELS for room, allowed in level.items()}}
MOST_ROOMS = 23
OWNERS = {
    "starlette": {"serve"},
    "uvicorn": {"serve"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "argparse": {"cli"},
    "torch": {"backend", "export", "inference"},
    "tensorflow": {"backend", "inference"},
    "jax": {"backend"},
    "ray": {"backend"},
}


def room_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "semseg":
                yield from (f"semseg.{alias.name}" for alias in node.names if (PACKAGE / f"{alias.name}.py").exists())
            else:
                yield node.module


SOURCES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_only_what_the_table_allows(path):
    room = room_of(path)
    allowed = MAY_IMPORT[room] | {"errors", "files", room}
    for module in imported_modules(path):
        if module.startswith("semseg.") and "*" not in allowed:
            assert module.split(".")[1] in allowed, f"{path.name} imports {module}: change the design first"
        owners = OWNERS.get(module.split(".")[0])
        assert owners is None or room in owners, f"{module} belongs to {owners}, not to {path.name}"


def test_every_room_stands_in_the_table_and_they_are_few():
    assert {room_of(path) for path in SOURCES} == set(MAY_IMPORT)
    assert len(MAY_IMPORT) <= MOST_ROOMS


def test_no_room_imports_one_of_a_higher_level():
    below = {"errors", "files"}
    for level in LEVELS:
        for room, allowed in level.items():
            assert "*" in allowed or allowed <= below | (set(level) - {room}), room
        below |= set(level)


def strings_of(path):
    """The strings of a module with their lines, docstrings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docstrings.add(id(first.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


BELOW_CLI = [path for path in SOURCES if room_of(path) not in ("cli", "__main__")]


@pytest.mark.parametrize("path", BELOW_CLI, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_neither_prints_nor_asserts_nor_speaks_command_line(path):
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}: assert in the package"
        is_print = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
        assert not is_print, f"{path}:{node.lineno}: print"
    for number, line in enumerate(source.splitlines(), start=1):
        flag = re.search(r"(?<![-\w])--[a-z][a-z-]+", line)
        assert flag is None, f"{path}:{number}: {flag and flag[0]}, a flag; name the parameter in backquotes"


def names_in_a_run_folder():
    from semseg.runs import names

    found = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}
    return {name for name in found if "." in name} | {"_model.keras"} - {names.LOG}


def test_a_name_in_a_run_folder_stands_in_one_room_alone():
    """Messages may name `classes.json`, the one file that users edit and pass back."""
    wanted = names_in_a_run_folder() - {"classes.json"}
    assert {"config.json", "metrics.json", "results.csv", "acc.png", "report.html", "_model.keras"} <= wanted
    for path in SOURCES:
        if room_of(path) == "runs":
            continue
        for number, text in strings_of(path):
            held = {name for name in wanted if re.search(rf"(^|[^\w.]){re.escape(name)}($|\s)", text)}
            held -= {"config.json"} if path.name == "model_file.py" else set()  # Keras' own, inside its archive
            assert not held, f"{path}:{number}: {held} belongs to semseg.runs.names"


MOST_IMPORTS_IN_FUNCTIONS, MOST_LINES_IN_CLI = 40, 3750


def imports_in_functions(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    for function in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    yield node.lineno, lines[node.lineno - 1]


def test_few_imports_stand_inside_functions():
    found = {(str(path), number): line for path in SOURCES for number, line in imports_in_functions(path)}
    assert len(found) <= MOST_IMPORTS_IN_FUNCTIONS, "\n".join(f"{at}: {line}" for at, line in found.items())


def test_the_command_line_is_thin():
    lines = [line for path in SOURCES if room_of(path) == "cli" for line in path.read_text("utf-8").splitlines()]
    assert len(lines) <= MOST_LINES_IN_CLI


def run_python(code):
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_no_backend_and_nothing_heavy():
    loaded = run_python("import sys, semseg, semseg.cli; print(*sys.modules)").split()
    for name in ("keras", "torch", "tensorflow", "jax", "numpy", "cv2", "matplotlib", "PIL"):
        assert name not in loaded


def test_every_public_name_can_be_had():
    import semseg

    for _ in range(2):  # importing a room must not hide a name behind the module
        for name in semseg.__all__:
            value = getattr(semseg, name)
            assert callable(value) or isinstance(value, dict | int), name
    with pytest.raises(AttributeError, match="no attribute 'unet'"):
        _ = semseg.unet


MISSION_NAMES = {
    "segmentation_model": ("down_block", "up_block", "bottleneck", "Unet"),
    "utils_func": ("load_images", "bin_image", "get_segmentation_arr", "give_color_to_seg_img"),
    "model_arch": ("get_model_arch",),
}


@pytest.mark.parametrize("module", MISSION_NAMES)
def test_the_modules_that_the_mission_names_hold_their_functions(module):
    for name in MISSION_NAMES[module]:
        assert callable(getattr(importlib.import_module(f"semseg.{module}"), name))


def test_the_functions_that_the_mission_names_are_public():
    import semseg

    others = ("data_generator", "show_predictions", "get_acc", "main")
    assert {*others, *(name for names in MISSION_NAMES.values() for name in names)} <= set(semseg.__all__)


def test_help_loads_nothing_heavy():
    code = "import sys, semseg.cli\ntry: semseg.cli.main(['--help'])\nexcept SystemExit: print(); print(*sys.modules)"
    loaded = run_python(code).splitlines()[-1].split()
    assert not {"keras", "numpy", "cv2"} & set(loaded)
