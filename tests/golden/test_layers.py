"""The layers of builder/: held by import-linter, and explained in docs/architecture.md."""

import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from tests.conftest import ROOT

LAYERS, CYCLES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]


@pytest.fixture
def copy(tmp_path):
    """The package and its contracts, to be broken."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "builder", tmp_path / "builder", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder) -> "subprocess.CompletedProcess[str]":
    program = (
        "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command"
    )
    command = [sys.executable, "-P", "-c", f"{program}; lint_imports_command(['--no-cache'])"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_packages_keep_to_their_layers(copy):
    done = lint(copy)
    assert done.returncode == 0, done.stdout
    assert f"{LAYERS['name']} KEPT" in done.stdout
    assert f"{CYCLES['name']} KEPT" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("model/tags.py", "from builder.common import paths", LAYERS["name"]),
        ("engine/client.py", "from builder.serve import plan", LAYERS["name"]),
        ("common/paths.py", "from builder.common import locks", ""),
        ("common/progress.py", "from builder.common import locks", CYCLES["name"]),
    ],
)
def test_an_import_that_goes_up_or_round_is_found(copy, module, line, broken):
    with (copy / "builder" / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    done = lint(copy)
    assert [
        name for name in (LAYERS["name"], CYCLES["name"]) if f"{name} BROKEN" in done.stdout
    ] == [*filter(None, [broken])]


def test_a_package_has_to_say_where_it_stands(copy):
    (copy / "builder" / "misc").mkdir()
    (copy / "builder" / "misc" / "__init__.py").write_text('"""Anything."""\n')
    assert "builder.misc" in lint(copy).stdout


def test_the_page_names_the_packages_of_the_contract_in_its_order():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| (\d+) \| `(\w+)` \|", page, re.MULTILINE)
    layers = [sorted(re.split(r"\s*\|\s*", layer)) for layer in LAYERS["layers"]]
    expected = [(str(depth), name) for depth, names in enumerate(layers, 1) for name in names]
    assert shown == expected


def test_no_folder_is_a_heap():
    for folder in [ROOT / "builder", *(ROOT / "builder").rglob("*/")]:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= 20, folder


def test_each_module_that_the_page_names_is_there():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+(?:/\w+)+\.py)`", page)) - {"tests/faults/catalogue.py"}
    assert named
    assert [name for name in sorted(named) if not (ROOT / "builder" / name).is_file()] == []
