import hashlib
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from builder.common.errors import BuilderError
from builder.llama.gguf import scripted as model

# Of the whole file. If this changes, caches and bands measured with the old model are void.
KNOWN = "99c6bdbdb1a4e309d9dc399345d5e5c472bbf5fe11334d1b532c18545df77787"
KNOWN_SWA = "237f5c4bb46305d9378f46d808549fa9101fb2db1aaf1c456d28f2346be1315b"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.scripted_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def swa_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.scripted_model(tmp_path_factory.mktemp("models"), "scripted-swa")


@pytest.fixture(scope="module")
def swa_reader(swa_path: Path) -> gguf.GGUFReader:
    return gguf.GGUFReader(swa_path)


@pytest.fixture(scope="module", params=model.MODELS)
def reader(request: pytest.FixtureRequest, path: Path, swa_path: Path) -> gguf.GGUFReader:
    return gguf.GGUFReader({"scripted": path, "scripted-swa": swa_path}[request.param])


@pytest.mark.parametrize(
    ("write", "known"), [(model.write_model, KNOWN), (model.write_swa_model, KNOWN_SWA)]
)
def test_bytes_are_the_known_ones(
    tmp_path: Path, write: Callable[[Path], None], known: str
) -> None:
    write(tmp_path / "fresh.gguf")
    assert hashlib.sha256((tmp_path / "fresh.gguf").read_bytes()).hexdigest() == known


def test_name_tells_the_content(path: Path, swa_path: Path) -> None:
    assert path.name == f"scripted-{KNOWN[:16]}.gguf"
    assert swa_path.name == f"scripted-swa-{KNOWN_SWA[:16]}.gguf"


def test_small_and_of_the_shape_that_forks_quantize(path: Path) -> None:
    assert path.stat().st_size < 25_000_000
    value = shape(gguf.GGUFReader(path), "llama")
    assert value["block_count"] >= 8
    assert value["attention.key_length"] == 128
    assert value["context_length"] >= 32768


def test_small_and_of_a_shape_that_forks_treat_apart(
    swa_path: Path, swa_reader: gguf.GGUFReader
) -> None:
    assert swa_path.stat().st_size < 25_000_000
    value = shape(swa_reader, "gemma3")
    # gemma3's last layer of each six sees all: both kinds are there.
    assert value["block_count"] == 6
    # Shorter than a slot of the smoke, so that its prompts leave the window.
    assert value["attention.sliding_window"] < 2048
    assert value["attention.key_length"] == 256
    assert value["attention.head_count"] / value["attention.head_count_kv"] >= 6
    assert value["context_length"] >= 32768


def shape(reader: gguf.GGUFReader, arch: str) -> dict[str, int]:
    """The sizes in the header, without the arch's name before them."""
    prefix = f"{arch}."
    return {
        name.removeprefix(prefix): field.contents()
        for name, field in reader.fields.items()
        if name.startswith(prefix)
    }


def test_no_layer_writes_where_the_script_is(reader: gguf.GGUFReader) -> None:
    layers = int(reader.tensors[-1].name.split(".")[1]) + 1
    writers = [t for t in reader.tensors if "attn_output" in t.name or "ffn_down" in t.name]
    assert len(writers) == 2 * layers
    for tensor in writers:
        assert not tensor.data[: model.SCRIPT_DIMS].any(), tensor.name
        assert tensor.data[model.SCRIPT_DIMS :].all(), tensor.name


def test_no_norm_of_what_a_layer_adds_writes_where_the_script_is(
    swa_reader: gguf.GGUFReader,
) -> None:
    norms = [tensor for tensor in swa_reader.tensors if ".post_" in tensor.name]
    assert len(norms) == 2 * model.SWA_LAYERS
    for tensor in norms:
        assert not tensor.data[: model.SCRIPT_DIMS].any(), tensor.name
        assert tensor.data[model.SCRIPT_DIMS :].all(), tensor.name


def test_script_leads_each_token_to_its_follower(reader: gguf.GGUFReader) -> None:
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    data = {tensor.name: tensor.data.astype(np.float64) for tensor in reader.tensors}
    output, embedding = data["output.weight"], data["token_embd.weight"]
    # A token is its direction: gemma3 multiplies every embedding by the same number.
    embedding = embedding / np.abs(embedding).max() * model.SCRIPT_INPUT
    for before, after in model.SCRIPT:
        # Only the script's dimensions: the others also hold what the layers add.
        ahead = (
            output[:, : model.SCRIPT_DIMS] @ embedding[tokens.index(before), : model.SCRIPT_DIMS]
        )
        best, second = np.sort(ahead)[[-1, -2]]
        assert tokens[int(ahead.argmax())] == after
        assert best - second > 15


def test_a_second_call_writes_nothing(path: Path) -> None:
    before = path.stat().st_mtime_ns
    assert model.scripted_model(path.parent) == path
    assert path.stat().st_mtime_ns == before


def test_a_damaged_file_is_written_again(tmp_path: Path) -> None:
    made = model.scripted_model(tmp_path)
    made.write_bytes(made.read_bytes()[:-1] + b"\xff")
    assert hashlib.sha256(model.scripted_model(tmp_path).read_bytes()).hexdigest() == KNOWN


def test_two_processes_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(model.scripted_model, [tmp_path, tmp_path])
    assert first == second
    assert hashlib.sha256(first.read_bytes()).hexdigest() == KNOWN
    assert list(tmp_path.iterdir()) == [first]


def test_other_bytes_than_known_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "ROPE_BASE", 10_000.0)
    with pytest.raises(BuilderError, match="other bytes"):
        model.scripted_model(tmp_path)
    assert list(tmp_path.iterdir()) == []
