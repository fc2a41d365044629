import hashlib
import multiprocessing
from pathlib import Path

import gguf
import numpy as np
import pytest

from builder import scripted_model as model
from builder.errors import BuilderError

# Of the whole file. If this changes, caches and bands measured with the old model are void.
KNOWN = "d5f678a8f3f33866003022e5c7741bcf0aa5a4c5756d741052ae1ac4bd63a76e"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.scripted_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def reader(path: Path) -> gguf.GGUFReader:
    return gguf.GGUFReader(path)


def test_bytes_are_the_known_ones(tmp_path: Path) -> None:
    model.write_model(tmp_path / "fresh.gguf")
    assert hashlib.sha256((tmp_path / "fresh.gguf").read_bytes()).hexdigest() == KNOWN


def test_name_tells_the_content(path: Path) -> None:
    assert path.name == f"scripted-{KNOWN[:16]}.gguf"


def test_small_and_of_the_shape_that_forks_quantize(path: Path, reader: gguf.GGUFReader) -> None:
    assert path.stat().st_size < 25_000_000
    value = {
        name: reader.fields[f"llama.{name}"].contents()
        for name in ("block_count", "attention.key_length", "context_length")
    }
    assert value["block_count"] >= 8
    assert value["attention.key_length"] == 128
    assert value["context_length"] >= 32768


def test_no_layer_writes_where_the_script_is(reader: gguf.GGUFReader) -> None:
    writers = [t for t in reader.tensors if "attn_output" in t.name or "ffn_down" in t.name]
    assert len(writers) == 2 * model.LAYERS
    for tensor in writers:
        assert not tensor.data[: model.SCRIPT_DIMS].any(), tensor.name
        assert tensor.data[model.SCRIPT_DIMS :].all(), tensor.name


def test_script_leads_each_token_to_its_follower(reader: gguf.GGUFReader) -> None:
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    data = {tensor.name: tensor.data.astype(np.float64) for tensor in reader.tensors}
    embedding, output = data["token_embd.weight"], data["output.weight"]
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
