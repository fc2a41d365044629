"""The machine's Debian mirror: asked while a base and an image are made, named by neither."""

import stat
from pathlib import Path

import pytest

from builder.build import apt_mirror, bootstrap, buildx
from builder.model.pins import BaseImage, Bootstrap, Bootstraps

RECIPE = Bootstrap("trixie", ["ca-certificates"], ["main", "contrib"])
RECIPES = Bootstraps(devel=RECIPE, runtime=RECIPE)
IMAGES = [
    BaseImage("devel", "turboquant-base:x", "sha256:1", "bootstrap"),
    BaseImage("runtime", "docker.io/debian@sha256:2", "sha256:2", "hub"),
]
PROGRAM = """#!/bin/sh
echo 'Packages Other http://elsewhere.example/x'
echo 'Packages Debian {given}'
"""


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An apt-get that was given this mirror."""

    def give(address: str) -> None:
        program = tmp_path / "bin" / "apt-get"
        program.parent.mkdir()
        program.write_text(PROGRAM.format(given=address))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    return give


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, progress):
    """What mmdebstrap is told to make an image of RECIPE, and the login that its apt has then."""

    def make() -> tuple[list[str], str]:
        words: list[str] = []
        login: list[str] = []

        def started(_tag: str, _recipe: Bootstrap, command: list[str], _progress: object) -> str:
            words.extend(command)
            for hook in command:
                if hook.startswith("--setup-hook=install"):
                    file = Path(hook.split()[3])
                    assert stat.S_IMODE(file.stat().st_mode) == 0o600
                    login.append(file.read_text())
            return "sha256:1"

        monkeypatch.setattr(bootstrap, "_import", started)
        bootstrap._make("x", RECIPE, [], progress)
        return words, "".join(login)

    return make


def test_the_login_is_apts_alone_and_gone_before_the_image_is_packed(apt, told):
    apt("http://me:s3%40cret@mirror.example:8080/debian/")
    words, login = told()
    assert login == "machine http://mirror.example:8080/debian/ login me password s3@cret\n"
    assert "cret" not in " ".join(words)
    assert words[-1] == "http://mirror.example:8080/debian/"
    assert [one for one in words if one.startswith("--customize-hook=rm -f ")]


def test_an_image_names_debians_own_mirror(apt, told):
    apt("http://me:s3cret@mirror.example/debian/")
    (hook,) = [one for one in told()[0] if one.endswith('>"$1/etc/apt/sources.list"')]
    assert "deb http://ftp.debian.org/debian trixie main contrib" in hook


def test_a_mirror_without_a_login_needs_no_file(apt, told):
    apt("http://mirror.example/debian/")
    assert told()[1] == ""


def test_steps_on_a_bootstrapped_image_get_the_mirror_as_a_secret(apt, tmp_path):
    apt("http://me:s3cret@mirror.example/debian/")
    made = apt_mirror.secrets(IMAGES, RECIPES, tmp_path)
    assert list(made) == ["devel-apt-sources"]
    file = made["devel-apt-sources"]
    assert file.read_text() == "deb http://me:s3cret@mirror.example/debian/ trixie main contrib\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    order = buildx.Order(tmp_path, tmp_path, tmp_path, [], {}, {}, secrets=made)
    words = buildx.command(order, tmp_path / "x.json")
    assert f'--secret=id=devel-apt-sources,"src={file}"' in words
    assert "s3cret" not in " ".join(words)


def test_debians_own_mirror_is_in_the_image_already(apt, tmp_path):
    apt("http://ftp.debian.org/debian/")
    assert apt_mirror.secrets(IMAGES, RECIPES, tmp_path) == {}


def test_no_login_is_in_a_mirrors_words(apt):
    apt("http://me:s3cret@mirror.example/debian/")
    assert "s3cret" not in repr(apt_mirror.find())
