import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from builder.common.errors import UsageError
from builder.engine import restrictions
from builder.model.pins import Pins, Profile
from builder.serve import compose, services
from builder.serve import systemd as units
from builder.serve.services import Options
from tests.conftest import ROOT, builder

HAIKU = Profile("local-haiku", parallel=2, slot_tokens=4096, thinking=False)
EMBED = Profile("e", 1, 512, embeddings=True, gpu="none", port=8081)


@pytest.fixture
def everything(real_pins: Pins) -> Pins:
    coder = replace(HAIKU, alias="local-coder", port=9090)
    profiles = {"haiku": HAIKU, "sonnet": HAIKU, "coder": coder, "embed": EMBED}
    return replace(real_pins, profiles=profiles)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    path.chmod(0o644)
    return path


def made(everything: Pins, model: Path, *names: str, **said: object) -> list[services.Service]:
    options = Options("turboquant:mainline-cpu", dict.fromkeys(names, model), **said)
    return services.services(everything, [], options)


def test_a_model_is_for_every_profile_that_chats(everything: Pins, model: Path):
    found = services.parse_models([str(model)], everything.profiles)
    assert found == dict.fromkeys(["haiku", "sonnet", "coder"], model)


def test_a_model_may_be_for_one_profile(everything: Pins, model: Path, tmp_path: Path):
    other = tmp_path / "other=1.gguf"
    other.touch()
    found = services.parse_models([str(model), f"embed={other}"], everything.profiles)
    assert found["embed"] == other
    assert found["haiku"] == model


def test_two_models_for_every_profile_are_refused(everything: Pins, model: Path):
    with pytest.raises(UsageError, match="two models for every profile"):
        services.parse_models([str(model), str(model)], everything.profiles)


def test_a_model_that_is_not_there_is_refused(everything: Pins, tmp_path: Path):
    with pytest.raises(UsageError, match="is no file"):
        services.parse_models([str(tmp_path)], everything.profiles)


def test_a_named_profile_needs_a_model(everything: Pins, model: Path):
    with pytest.raises(UsageError, match="no model for profile embed"):
        services.services(everything, ["embed"], Options("x", {"haiku": model}))


def test_an_unknown_profile_gets_the_nearest(everything: Pins, model: Path):
    with pytest.raises(UsageError) as caught:
        services.services(everything, ["haikoo"], Options("x", {"haiku": model}))
    assert "haiku" in caught.value.hint


def test_the_kv_type_is_that_of_the_images_variant(everything: Pins, model: Path):
    [one] = made(everything, model, "haiku", labelled="mainline-cpu")
    assert one.command[one.command.index("-ctk") + 1] == "q4_0"
    [one] = made(everything, model, "haiku", labelled="mainline-cpu", variant="thetom-cpu")
    assert one.command[one.command.index("-ctk") + 1] == "turbo4"


def test_a_flag_that_the_image_lacks_is_refused(everything: Pins, model: Path):
    everything.profiles["haiku"] = replace(HAIKU, flags=["--no-such-flag"])
    with pytest.raises(UsageError) as caught:
        made(everything, model, "haiku", help_text="--reasoning\n")
    assert "profiles.haiku.flags: --no-such-flag" in caught.value.why


@pytest.mark.parametrize(
    ("variant", "gpu", "profile", "expected"),
    [
        ("spiritbuun-cuda12-sm86", None, "haiku", True),
        ("spiritbuun-cuda12-sm86", None, "embed", False),
        ("spiritbuun-cuda12-sm86", False, "haiku", False),
        ("mainline-cpu", None, "haiku", False),
        ("mainline-cpu", True, "haiku", True),
    ],
)
def test_who_gets_the_gpu(
    everything: Pins, model: Path, variant: str, gpu: bool | None, profile: str, expected: bool
):
    [one] = made(everything, model, profile, labelled=variant, gpu=gpu)
    assert one.gpu is expected
    assert ("deploy" in yaml.safe_load(compose.to_yaml([one]))["services"][profile]) is expected
    assert ("--gpus all" in str(units.files([one], "systemd"))) is expected
    assert ("AddDevice" in str(units.files([one], "quadlet"))) is expected


@pytest.mark.parametrize("address", ["::", "192.168.1.2"])
def test_an_address_beyond_the_loopback_needs_a_key(everything: Pins, model: Path, address: str):
    with pytest.raises(UsageError, match=f"whoever reaches {address}"):
        made(everything, model, "haiku", host=address)


def test_the_key_is_a_file_and_never_a_word(everything: Pins, model: Path, tmp_path: Path):
    key = tmp_path / "keys"
    key.write_text("a-secret\n")
    key.chmod(0o644)
    [one] = made(everything, model, "haiku", host="::1", key_file=key)
    assert one.command[-2:] == ("--api-key-file", "/run/api-key")
    assert services.Mount(str(key), "/run/api-key") in one.mounts
    texts = [compose.to_yaml([one]), *units.files([one], "systemd").values()]
    assert all("a-secret" not in text for text in texts)
    assert one.published == "[::1]:8080:8080"


@pytest.mark.parametrize("content", [b"# a\rs3cret\r", b"k\r\n", b"", b"\xef\xbb\xbfk\n"])
def test_keys_that_llama_server_reads_otherwise_are_refused(
    everything: Pins, model: Path, tmp_path: Path, content: bytes
):
    key = tmp_path / "key"
    key.write_bytes(content)
    with pytest.raises(UsageError, match=r"line 1 has|has no key"):
        made(everything, model, "haiku", host="0.0.0.0", key_file=key)  # noqa: S104


def test_every_way_to_serve_drops_the_same_and_keeps_a_log_with_an_end(
    everything: Pins, model: Path
):
    found = made(everything, model, "haiku")
    (service,) = yaml.safe_load(compose.to_yaml(found))["services"].values()
    served = restrictions.always()
    assert service["cap_drop"] == served["cap_drop"] == ["ALL"]
    assert service["security_opt"] == served["security_opt"] == ["no-new-privileges"]
    assert service["logging"]["driver"] == served["log_config"].type == "json-file"
    assert service["logging"]["options"] == served["log_config"].config
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    unit = units.files(found, "systemd")["turboquant-haiku.service"]
    for words in (
        *("--cap-drop ALL", "--security-opt no-new-privileges", "--log-driver json-file"),
        *("--log-opt max-size=10m", "--log-opt max-file=3", "--network turboquant-served"),
    ):
        assert f" {words} " in unit
    quadlet = units.files(found, "quadlet")["turboquant-haiku.container"].splitlines()
    for line in (
        *("DropCapability=all", "NoNewPrivileges=true", "LogDriver=journald"),
        "Network=turboquant.network",
    ):
        assert line in quadlet


def test_a_word_that_is_no_address_is_refused(everything: Pins, model: Path):
    with pytest.raises(UsageError, match="is no address"):
        made(everything, model, "haiku", host="localhost")


def test_who_may_read_the_model_is_whom_the_container_runs_as(everything: Pins, model: Path):
    status = model.stat()
    model.chmod(0o640)
    [one] = made(everything, model, "haiku")
    assert (one.user, one.groups) == (None, (status.st_gid,))
    model.chmod(0o600)
    [one] = made(everything, model, "haiku")
    assert (one.user, one.groups) == (f"{status.st_uid}:{status.st_gid}", ())
    assert yaml.safe_load(compose.to_yaml([one]))["services"]["haiku"]["user"] == one.user
    assert f"--user {one.user}" in str(units.files([one], "systemd"))
    assert f"User={one.user}" in str(units.files([one], "quadlet"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_of_two_owners_that_nobody_else_reads_are_refused(
    everything: Pins, model: Path, tmp_path: Path
):
    key = tmp_path / "keys"
    key.write_text("k")
    for path, owner in ((model, 1), (key, 2)):
        path.chmod(0o600)
        os.chown(path, owner, owner)
    with pytest.raises(UsageError, match="no one user"):
        made(everything, model, "haiku", key_file=key)


def test_a_draft_lies_beside_the_model(everything: Pins, model: Path):
    everything.profiles["haiku"] = replace(HAIKU, draft="small.gguf")
    with pytest.raises(UsageError, match=r"small\.gguf is no file"):
        made(everything, model, "haiku")
    shutil.copy(model, model.with_name("small.gguf"))
    [one] = made(everything, model, "haiku")
    assert one.mounts[1] == services.Mount(str(model.with_name("small.gguf")), "/models/draft.gguf")


def test_holders_of_the_card_exclude_each_other_and_an_embedder_none(everything: Pins, model: Path):
    haiku, sonnet, coder, embed = made(everything, model, *everything.profiles)
    every = [haiku, sonnet, coder, embed]
    assert services.conflicting(haiku, every) == [sonnet, coder]
    assert services.conflicting(embed, every) == []
    unit = units.files(every, "systemd")["turboquant-sonnet.service"]
    assert "Conflicts=turboquant-haiku.service\nConflicts=turboquant-coder.service\n" in unit
    # One way alone, or a start of both would be a cycle.
    assert "After=turboquant-haiku.service" in unit
    assert "After=turboquant-coder.service" not in unit
    assert "Conflicts" not in units.files(every, "quadlet")["turboquant-embed.container"]


def test_holders_with_two_ports_are_no_compose_file(everything: Pins, model: Path):
    with pytest.raises(UsageError, match=r"profiles\.coder\.port: 9090 is not 8080"):
        compose.to_yaml(made(everything, model, "haiku", "coder", "embed"))


def test_each_service_is_a_compose_profile_of_its_own(everything: Pins, model: Path):
    page = yaml.safe_load(compose.to_yaml(made(everything, model, "haiku", "sonnet", "embed")))
    assert {name: one["profiles"] for name, one in page["services"].items()} == {
        "haiku": ["haiku"],
        "sonnet": ["sonnet"],
        "embed": ["embed"],
    }


@pytest.mark.parametrize("name", ["a b.gguf", "a,b.gguf", "a:b.gguf", "50%.gguf", 'a"b.gguf'])
def test_a_path_that_a_units_mount_cannot_say_is_refused(everything: Pins, model: Path, name: str):
    odd = model.rename(model.with_name(name))
    one = made(everything, odd, "haiku")
    assert yaml.safe_load(compose.to_yaml(one))["services"]["haiku"]["volumes"]
    with pytest.raises(UsageError, match="a unit's mount cannot have"):
        units.files(one, "systemd")


def test_the_commands_write_files_and_say_what_is_not_checked(model: Path, tmp_path: Path):
    shared = (
        "--model",
        model,
        "--image",
        "registry.example/none:such",
        "--pins",
        ROOT / "pins.toml",
    )
    result = builder("compose", "haiku", *shared, "--out", tmp_path / "compose.yaml")
    assert result.returncode == 0, result.stderr
    assert "not checked against registry.example/none:such" in result.stderr
    assert list(yaml.safe_load((tmp_path / "compose.yaml").read_text())["services"]) == ["haiku"]
    result = builder("unit", "haiku", *shared, "--format", "quadlet", "--out", tmp_path)
    assert result.stdout.splitlines() == [
        str(tmp_path / name) for name in ("turboquant-haiku.container", "turboquant.network")
    ]
    text = (tmp_path / "turboquant-haiku.container").read_text()
    assert "Image=registry.example/none:such" in text


def test_an_unknown_format_is_refused(model: Path):
    result = builder("unit", "--format", "upstart", "--model", model)
    assert result.returncode == 2
    assert "neither systemd nor quadlet" in result.stderr


def test_a_place_that_cannot_be_written_is_named(model: Path, tmp_path: Path):
    nowhere = tmp_path / "no" / "such" / "compose.yaml"
    result = builder("compose", "haiku", "--model", model, "--image", "none:such", "--out", nowhere)
    assert result.returncode == 2
    assert str(nowhere) in result.stderr
