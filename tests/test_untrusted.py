"""A run folder from a stranger: nothing of it is followed out of it, allocated unchecked, or waited for."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from helpers import message_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from seq2seq.config import Config, ConfigError, ModelConfig, TokenizerConfig
from seq2seq.errors import UserError
from seq2seq.model.shapes import parameter_shapes
from seq2seq.model.transformer import Transformer
from seq2seq.recipe import build_config, load_config, refuse_fetching
from seq2seq.run import Run
from seq2seq.run_folder import weights as weights_module
from seq2seq.run_folder.checkpoints import STATE_HASH, _state_hash
from seq2seq.run_folder.files import RunError, read_json, read_tensors
from seq2seq.run_folder.tensor_header import HeaderError, read_header
from seq2seq.run_folder.weights import build_model
from seq2seq.text.model_proto import ModelProtoError, check_model_proto
from seq2seq.text.tokenizer import Tokenizer, TokenizerError, read_model
from seq2seq.training.state import TrainingError, TrainingState
from seq2seq.training.state_check import check_saved_state
from seq2seq.untrusted import check_links, open_regular, read_regular

SMALL = {"d_model": 16, "num_heads": 2, "d_ff": 24, "num_encoder_layers": 1, "num_decoder_layers": 1}
LINES = [f"the {a} {b} sees {c}" for a, b, c in itertools.product(["big", "old"], ["cat", "dog"], ["mice", "birds"])]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.learn(TokenizerConfig(vocab_size=40), LINES, LINES, seed=1)


@pytest.fixture
def finished(tmp_path: Path, tokenizer: Tokenizer) -> Run:
    run, config = Run.create(tmp_path / "run"), build_config({"model": SMALL})
    run.write_config(config)
    run.write_tokenizer(tokenizer)
    model = build_model(config, tokenizer)
    run.save_checkpoint(1, model.state_dict(), {"moment": torch.ones(3)}, {})
    run.write_source_hashes({name: np.arange(3) for name in ("exact", "normalized")})
    run.write_model(model.state_dict(), {"identity": {"tokenizer": tokenizer.content_hash()}})
    return run


def fails(work: Callable[[], object], *parts: str, kind: type[UserError] = UserError) -> None:
    message_of(kind, work, *parts)


def rewrite(run: Run, tensors: dict[str, torch.Tensor]) -> None:
    """Other weights, vouched for by model.json, as whoever made both would write them."""
    save_file(tensors, run.path / "model.safetensors")
    info = read_json(run.path / "model.json")
    info["files"]["model.safetensors"] = hashlib.sha256((run.path / "model.safetensors").read_bytes()).hexdigest()
    (run.path / "model.json").write_text(json.dumps(info))


# Plain files, inside the folder


def test_pipes_devices_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    started = time.monotonic()
    for path, reason in ((tmp_path / "pipe", "not a plain file"), (Path(os.devnull), "not a plain file")):
        with pytest.raises(OSError, match=reason):
            open_regular(path)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    assert time.monotonic() - started < 5


def test_a_file_is_read_up_to_a_size(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_regular(tmp_path / "file", 4)


@pytest.mark.parametrize("name", ["config.toml", "model.json", "model.safetensors", "tokenizer.model"])
def test_a_pipe_in_a_run_folder_is_not_waited_for(finished: Run, name: str) -> None:
    (finished.path / name).unlink()
    os.mkfifo(finished.path / name)
    fails(lambda: Run.open(finished.path).load_model(), name, "not a plain file")


@pytest.mark.parametrize(
    "name",
    [
        "config.toml", "model.json", "model.safetensors", "tokenizer.model", "training_sources.safetensors",
        "metrics.jsonl", ".lock", ".corpus", "checkpoints", "checkpoints/step-00000001",
        "checkpoints/step-00000001/state.json",
    ],
)  # fmt: skip
def test_links_out_of_a_run_folder_are_not_followed(finished: Run, tmp_path: Path, name: str) -> None:
    path, outside = finished.path / name, tmp_path / "outside"
    if path.exists():
        path.rename(outside)
    path.symlink_to(outside)
    fails(lambda: Run.open(finished.path), str(path), "a link that leads out of the folder")
    with pytest.raises(UserError, match="leads out"), Run(finished.path).locked():
        pytest.fail("it would write through the link")


def test_links_inside_and_a_run_folder_that_is_a_link_are_followed(finished: Run, tmp_path: Path) -> None:
    (finished.path / "model.json").rename(finished.path / "other.json")
    (finished.path / "model.json").symlink_to("other.json")
    (tmp_path / "alias").symlink_to(finished.path)
    assert Run.open(tmp_path / "alias").load_model() is not None
    check_links(tmp_path, ["absent"])


@pytest.mark.parametrize("name", ["../../config.toml", "/dev/zero", "/etc/passwd", "other"])
def test_a_path_in_a_checkpoints_state_is_not_opened(finished: Run, name: str) -> None:
    checkpoint = finished.checkpoints()[0]
    state = read_json(checkpoint.path / "state.json")
    state.pop(STATE_HASH)
    state["files"][name] = "0" * 64
    (checkpoint.path / "state.json").write_text(json.dumps({**state, STATE_HASH: _state_hash(state)}))
    fails(checkpoint.verify, "state.json: damaged: it names files that are not a checkpoint's")


def test_nothing_is_fetched_on_the_word_of_a_run_folder(tmp_path: Path, run_cli: Any) -> None:
    download = {"path": str(tmp_path / "planted"), "url": "http://127.0.0.1:9/x", "sha256": "0" * 64}
    data = {"train_source": download["path"], "train_target": download["path"], "downloads": [download]}
    config = build_config({"data": data})
    downloads = config.data.downloads
    fails(lambda: refuse_fetching(downloads, "config.toml"), "planted", "nothing is fetched", kind=ConfigError)
    run = Run.create(tmp_path / "run")
    run.write_config(config)
    result = run_cli("train", "--run-dir", run.path, "--resume", "--set", "training.max_steps=1")
    assert (result.code, result.err.count("\n")) == (2, 1) and "nothing is fetched" in result.err
    (tmp_path / "planted").write_bytes(b"")
    refuse_fetching(downloads, "config.toml")


# Weights


@pytest.mark.parametrize(
    ("header", "data", "part"),
    [
        (b"", b"", "not valid JSON"),
        (b"[" * 10_000, b"", "not valid JSON"),
        (b"[]", b"", "not a JSON object"),
        (b'{"a": 3}', b"", "stored as None"),
        (b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}', b"x", "stored as 'U8'"),
        (b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', b"1234", "no proper shape"),
        (b'{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}', b"1234", "no proper shape"),
        (
            b'{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 4]}}',
            b"1234",
            "does not fill",
        ),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}', b"1234", "does not fill"),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}', b"12345678", "gaps"),
        (
            b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, '
            b'"b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
            b"1234",
            "overlap",
        ),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', b"12345", "it has"),
    ],
)
def test_a_header_that_does_not_fit_its_file_is_refused(tmp_path: Path, header: bytes, data: bytes, part: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    with pytest.raises(HeaderError, match=part):
        read_header(path)
    fails(lambda: read_tensors(path), str(path), kind=RunError)


def test_a_header_as_long_as_memory_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for content in (b"", b"1234567", (2**63).to_bytes(8, "little"), (2**63).to_bytes(8, "little") + b"x" * 100):
        path.write_bytes(content)
        with pytest.raises(HeaderError, match="a header of"):
            read_header(path)


@given(st.binary(max_size=200) | st.dictionaries(st.text(max_size=3), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["F32", "I64", "F8"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["dtype", "shape", "data_offsets"]), inner, max_size=3), max_leaves=6),
    max_size=3).map(lambda value: json.dumps(value).encode()), st.binary(max_size=20))  # fmt: skip
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_a_header_it_is_read_or_refused(tmp_path: Path, header: bytes, data: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    try:
        tensors = read_header(path)
    except HeaderError as error:
        assert "\n" not in str(error)
    else:
        assert sum(tensor.num_bytes for tensor in tensors.values()) == len(data)


def test_a_sparse_terabyte_is_refused_unread(finished: Run) -> None:
    size = 2**46
    header = json.dumps({"a": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    path = finished.path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    try:
        os.truncate(path, 8 + len(header) + size)
    except OSError:
        pytest.skip("the file system has no such large files")
    fails(finished.load_model, "model.safetensors: damaged", "more than this machine has memory")


@pytest.mark.parametrize("model", [{"d_model": 65_536, "d_ff": 2**20}, {"num_encoder_layers": 1000}, {"d_ff": 32}])
def test_a_configuration_of_another_size_is_refused_before_a_model_is_made(
    finished: Run, monkeypatch: pytest.MonkeyPatch, model: dict[str, int]
) -> None:
    finished.write_config(build_config({"model": {**SMALL, **model}}))
    monkeypatch.setattr(weights_module, "Transformer", lambda *_, **__: pytest.fail("a model was made"))
    monkeypatch.setattr(weights_module, "file_hash", lambda _: pytest.fail("the file was read"))
    fails(finished.load_model, "model.safetensors: ", kind=RunError)


def test_a_model_larger_than_memory_is_not_begun(tokenizer: Tokenizer) -> None:
    config = build_config({"model": {"d_model": 65_536, "d_ff": 2**20, "num_encoder_layers": 1000}})
    fails(lambda: build_model(config, tokenizer), "parameters", "GB", "model.d_model", kind=RunError)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("tied", ["auto", "all", "target", "none"])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_the_shapes_are_those_of_the_model(shared: bool, tied: Any, norm: Any, positions: Any) -> None:
    if tied == "all" and not shared:
        pytest.skip("there is no such model")
    config = ModelConfig(
        d_model=8, num_heads=2, head_size=3, d_ff=5, num_encoder_layers=2, num_decoder_layers=1, norm=norm,
        positions=positions, max_positions=7, tied_embeddings=tied,
    )  # fmt: skip
    sizes = (11, 11) if shared else (11, 13)
    model = Transformer(config, *sizes, shared=shared)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert parameter_shapes(config, *sizes, shared=shared) == expected


def test_weights_in_another_precision_are_refused(finished: Run) -> None:
    rewrite(finished, {name: tensor.half() for name, tensor in finished.load_model().state_dict().items()})
    fails(finished.load_model, "model.safetensors: damaged", "'F16', not as F32")


def test_two_vocabularies_where_one_is_configured_are_refused(finished: Run) -> None:
    content = (finished.path / "tokenizer.model").read_bytes()
    (finished.path / "tokenizer.model").unlink()
    for name in ("source.model", "target.model"):
        (finished.path / name).write_bytes(content)
    info = read_json(finished.path / "model.json")
    del info["identity"]
    (finished.path / "model.json").write_text(json.dumps(info))
    fails(finished.load_model, str(finished.path), "two vocabularies")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", "3"), ("step", -1), ("epoch", 2**60), ("horizon", 0), ("limits", [None, "x", None]), ("seconds", None),
        ("validations", [{"step": 1}]), ("validations", 3), ("since_log", {"loss": 1}), ("identity", {"corpus": 3}),
        ("environment", []), ("finished", 1),
    ],
)  # fmt: skip
def test_a_state_of_wrong_types_is_named(name: str, value: object) -> None:
    good = TrainingState(step=2, seconds=1.0).__dict__
    check_saved_state(good, "state.json")
    fails(lambda: check_saved_state({**good, name: value}, "state.json"), f"damaged: {name} = ", kind=TrainingError)


def test_metrics_that_are_nested_without_end_are_passed_over(finished: Run) -> None:
    (finished.path / "metrics.jsonl").write_text("[" * 100_000 + '\n{"step": 1}\n')
    assert list(finished.metrics()) == [{"step": 1}]


# SentencePiece models: what crashes sentencepiece 0.2.1 never reaches it


def varint(value: int) -> bytes:
    return (bytes([value & 127 | 128]) + varint(value >> 7)) if value > 127 else bytes([value])


def field(number: int, value: bytes | int | float) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 5) + struct.pack("<f", value)


def piece(text: bytes, score: float = 0.0, kind: int = 1) -> bytes:
    return field(1, field(1, text) + field(2, score) + field(3, kind))


def proto(*parts: bytes, model_type: int = 2) -> bytes:
    """A model of eight pieces and what else is given."""
    special = [(b"<pad>", 3), (b"<unk>", 2), (b"<s>", 3), (b"</s>", 3)]
    pieces = b"".join(piece(text, 0.0, kind) for text, kind in special)
    pieces += b"".join(piece(text, -1.0 * i) for i, text in enumerate(["▁".encode(), b"a", b"b", b"c"]))
    ids = b"".join(field(number, value) for number, value in ((40, 1), (41, 2), (42, 3), (43, 0)))
    return pieces + b"".join(parts) + field(2, field(3, model_type) + ids)


def charsmap(*units: int, texts: bytes = b"abc\0") -> bytes:
    trie = struct.pack("<256I", *units, *[0] * (256 - len(units)))
    return field(3, field(2, struct.pack("<I", len(trie)) + trie + texts))


HOSTILE = {
    "a long piece (issue 1263)": proto(piece(b"a" * 600_000, -20.0), model_type=1),
    "a root that is a leaf (issue 1269)": proto(charsmap(0x80000000 | 0x1FFFFF << 10 | 1 << 9)),
    "a root that points away (issue 1269)": proto(charsmap(0x3FFFFF << 10)),
    "a unit that points away": proto(charsmap(0, 0x1FFFFF << 10)),
    "no trie": proto(field(3, field(2, b"abc"))),
    "a trie that is larger than the table": proto(field(3, field(2, struct.pack("<I", 2**31) + b"abc\0"))),
    "texts without an end": proto(charsmap(texts=b"abc")),
    "texts without a limit": proto(charsmap(texts=b"a" * 1000 + b"\0")),
    "texts that are none": proto(charsmap(texts=b"\xff\xfe\0")),
    "a piece with NUL": proto(piece(b"a\0b")),
    "an empty piece": proto(piece(b"")),
    "a piece that is no text": proto(piece(b"\xff")),
    "a score that is none": proto(piece(b"x", float("nan"))),
    "a piece of no kind": proto(piece(b"x", 0.0, 77)),
    "self-tests": proto(field(4, b"\x0a\x00")),
    "a long text for the unknown": proto(field(2, field(44, b"x" * 100_000))),
    "a model of words": proto(model_type=3),
    "no pieces": field(2, b""),
    "a group": b"\x0b\x0c",
    "a length beyond the end": b"\x0a\xff\xff\xff\xff\x0f",
    "a number without an end": b"\x08" + b"\x80" * 20,
    "nothing": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_trainer_writes_does_not_reach_sentencepiece(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentencepiece, "SentencePieceProcessor", lambda **_: pytest.fail("it reached the library"))
    fails(lambda: Tokenizer(HOSTILE[name], name="x.model"), "x.model: not a SentencePiece model", kind=TokenizerError)


def test_what_is_made_up_like_a_model_is_one() -> None:
    tokenizer = Tokenizer(proto())
    assert tokenizer.source_vocab_size == 8
    assert tokenizer.decode(tokenizer.encode_source(["a b"])) == ["a b"]


@pytest.mark.parametrize("normalization", ["identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf"])
@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
@pytest.mark.parametrize("byte_fallback", [False, True])
def test_what_a_trainer_writes_passes(normalization: Any, algorithm: Any, byte_fallback: bool) -> None:
    size = 330 if byte_fallback else 48
    config = TokenizerConfig(
        vocab_size=size, normalization=normalization, algorithm=algorithm, byte_fallback=byte_fallback
    )
    check_model_proto(Tokenizer.learn(config, LINES, LINES, seed=1).source_bytes)


@given(st.binary(max_size=100))
@settings(max_examples=300, deadline=None)
def test_bytes_are_no_model(content: bytes) -> None:
    with pytest.raises(ModelProtoError):
        check_model_proto(content)


def test_the_requirements_exclude_versions_that_crash() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert '"sentencepiece>=0.2.2"' in text
    assert '"datasets>=4.0"' in text  # before, a dataset's script could be run


def test_a_tokenizer_that_is_a_device_is_not_read() -> None:
    fails(lambda: read_model(Path("/dev/zero")), "cannot be read: not a plain file", kind=TokenizerError)


# Configurations

fields_of = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from([f"{s}.{name}" for s in ("data", "tokenizer", "model", "training", "decoding")
                         for name in getattr(Config(), s).model_dump()])  # fmt: skip


@given(st.dictionaries(names, fields_of, max_size=4))
@settings(max_examples=100, deadline=None)
def test_any_value_of_any_field_is_taken_or_refused_in_one_line(values: dict[str, object]) -> None:
    nested: dict[str, dict[str, object]] = {}
    for name, value in values.items():
        section, _, key = name.partition(".")
        nested.setdefault(section, {})[key] = value
    try:
        build_config(nested)
    except ConfigError as error:
        assert "\n" not in str(error)


def test_a_configuration_without_an_end_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"#" * (2 << 20))
    fails(lambda: load_config(path), "recipe.toml: more than 1,048,576 bytes", kind=ConfigError)


# Found by fuzzing


@pytest.mark.parametrize("value", ["\ud800", [[]]])
def test_a_state_that_cannot_be_hashed_is_damaged(finished: Run, value: object) -> None:
    checkpoint = finished.checkpoints()[0]
    for _ in range(900):
        value = [value] if isinstance(value, list) else value
    state = {**read_json(checkpoint.path / "state.json"), "odd": value}
    (checkpoint.path / "state.json").write_text(json.dumps(state))
    fails(checkpoint.verify, "state.json: damaged", kind=RunError)


def test_an_environment_that_is_unknown_here_is_only_told(tiny_run: Any, run_cli: Any, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.path, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "step-00000100" / "state.json"
    state = read_json(path)
    state.pop(STATE_HASH)
    state["environment"]["moon"] = "full"
    path.write_text(json.dumps({**state, STATE_HASH: _state_hash(state)}))
    result = run_cli("train", "--run-dir", tmp_path / "run", "--resume", "--set", "training.max_steps=101")
    assert result.code == 0, result.err
    assert "moon None instead of full" in result.err


@pytest.mark.parametrize("hashes", [np.zeros((2, 2), np.int64), np.zeros(2, np.float32)])
def test_source_hashes_that_are_no_lists_of_integers_are_refused(finished: Run, hashes: Any) -> None:
    save_arrays(dict.fromkeys(("exact", "normalized"), hashes), finished.path / "training_sources.safetensors")
    fails(finished.source_hashes, "damaged: its hashes are not lists of 64-bit integers", kind=RunError)
