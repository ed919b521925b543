"""A run folder on disk: configuration, tokenizer, weights, checkpoints, metrics.

    config.toml            every field, resolved
    tokenizer.model        SentencePiece (or source.model and target.model)
    model.safetensors      the model to use
    model.json             format version, sizes, hashes, how it was trained, validation scores
    training_sources.safetensors   hashes of the training sources, for the benchmark's overlap report
    checkpoints/step-00001000/     model.safetensors optimizer.safetensors state.json
    metrics.jsonl          one object a line, append only
    README.md              model card

Files are written whole or not at all: beside their place, synchronised, then renamed. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor

from seq2seq.config import Config, ConfigError, dump_config, parse_config
from seq2seq.errors import UserError
from seq2seq.model.transformer import Transformer
from seq2seq.text.errors import unwritable
from seq2seq.text.tokenizer import SHARED_FILE, SOURCE_FILE, TARGET_FILE, Tokenizer, TokenizerError

FORMAT_VERSION = 1
CONFIG, MODEL, MODEL_INFO = "config.toml", "model.safetensors", "model.json"
METRICS, CARD = "metrics.jsonl", "README.md"
SOURCE_HASHES = "training_sources.safetensors"
RUN_FILES = (
    MODEL_INFO, MODEL, CONFIG, METRICS, CARD, SOURCE_HASHES, SHARED_FILE, SOURCE_FILE, TARGET_FILE, "curves.png",
)  # fmt: skip
CHECKPOINTS, STATE, OPTIMIZER = "checkpoints", "state.json", "optimizer.safetensors"
CORPUS = ".corpus"  # hidden: a folder `corpus` beside a run may be the user's own


class RunError(UserError):
    """A run folder that cannot be used as asked. The message names the folder or file and the remedy."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: `path` holds the model, the training state and, in the newest ones, the optimizer."""

    path: Path
    step: int

    def state(self) -> dict[str, Any]:
        state = read_json(self.path / STATE)
        if state.get("step") != self.step or not isinstance(state.get("files"), dict):
            raise RunError(f"{self.path / STATE}: damaged: it does not say what belongs to step {self.step}")
        return state

    def model_tensors(self) -> dict[str, Tensor]:
        return self._tensors(MODEL)

    def optimizer_tensors(self) -> dict[str, Tensor]:
        return self._tensors(OPTIMIZER)

    def resumable(self) -> bool:
        return (self.path / OPTIMIZER).exists()

    def verify(self) -> None:
        """Raises RunError where a file does not have the SHA-256 that state.json names."""
        for name, expected in self.state()["files"].items():
            if (self.path / name).exists() and file_hash(self.path / name) != expected:
                raise RunError(f"{self.path / name}: damaged: its SHA-256 is not the one in {STATE}")

    def _tensors(self, name: str) -> dict[str, Tensor]:
        return read_tensors(self.path / name)


class Run:
    """One run folder. Open it with `Run.open` or make it with `Run.create`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether the folder holds a run, or what could be one: anything that must not be overwritten unasked."""
        return any((path / name).exists() for name in (CONFIG, MODEL, MODEL_INFO, METRICS, CHECKPOINTS))

    @classmethod
    def create(cls, path: Path, *, overwrite: bool = False) -> Run:
        """An empty run folder. Where one holds a run already, raises RunError unless `overwrite`, which removes it."""
        if cls.exists(path):
            if not overwrite:
                raise RunError(f"{path} holds a run already: continue it with --resume, or replace it with --overwrite")
            remove_run(path)
        elif (path / CARD).exists():
            raise RunError(f"{path / CARD}: a run would replace it: choose another folder with --run-dir")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{path}: the run folder cannot be made: {error.strerror}") from None
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Run:
        """An existing run. Raises RunError where there is none."""
        if not path.is_dir():
            raise RunError(f"{path}: no such run folder; make one with `seq2seq train ... --run-dir {path}`")
        if not (path / CONFIG).exists():
            raise RunError(f"{path}: not a run folder: it has no {CONFIG}")
        return cls(path)

    # Configuration, tokenizer, metrics

    def config(self) -> Config:
        try:
            return parse_config(read_bytes(self.path / CONFIG).decode("utf-8"), origin=str(self.path / CONFIG))
        except UnicodeDecodeError:
            raise RunError(f"{self.path / CONFIG}: damaged: not UTF-8 text") from None
        except ConfigError as error:
            raise RunError(str(error)) from None

    def write_config(self, config: Config) -> None:
        write_atomic(self.path / CONFIG, dump_config(config).encode())

    def tokenizer(self) -> Tokenizer:
        try:
            return Tokenizer.load(self.path)
        except TokenizerError as error:
            raise RunError(str(error)) from None

    def write_tokenizer(self, tokenizer: Tokenizer) -> None:
        files = tokenizer.files()
        for name, content in files.items():
            write_atomic(self.path / name, content)
        for name in {SHARED_FILE, SOURCE_FILE, TARGET_FILE} - files.keys():  # left by a run that came to nothing
            (self.path / name).unlink(missing_ok=True)

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Adds one line to metrics.jsonl."""
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def metrics_size(self) -> int:
        path = self.path / METRICS
        return path.stat().st_size if path.exists() else 0

    def cut_metrics(self, size: int) -> None:
        """Drops what was logged after a checkpoint that had `size` bytes of metrics."""
        path = self.path / METRICS
        if path.exists() and path.stat().st_size > size:
            os.truncate(path, size)

    def metrics(self) -> Iterator[dict[str, Any]]:
        path = self.path / METRICS
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    with contextlib.suppress(ValueError):  # a line cut short by a crash
                        record = json.loads(line)
                        if isinstance(record, dict):
                            yield record

    # The model to use

    def finished(self) -> bool:
        return (self.path / MODEL).exists() and (self.path / MODEL_INFO).exists()

    def write_model(self, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
        """Writes model.safetensors, then model.json with its hash: a model without its json is not finished."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / MODEL_INFO).unlink()
        write_tensors(self.path / MODEL, tensors)
        info = {"format_version": FORMAT_VERSION, **info, "files": {MODEL: file_hash(self.path / MODEL)}}
        write_json(self.path / MODEL_INFO, info)

    def info(self) -> dict[str, Any]:
        """model.json. Raises RunError where training has not finished or the format is a newer one."""
        if not self.finished():
            latest = self.latest_checkpoint()
            where = f" (it is at step {latest.step:,})" if latest else ""
            command = shlex.join(["seq2seq", "train", "--run-dir", str(self.path), "--resume"])
            raise RunError(f"{self.path}: this run has no finished model{where}: continue it with `{command}`")
        info = read_json(self.path / MODEL_INFO)
        if info.get("format_version") != FORMAT_VERSION:
            raise RunError(
                f"{self.path / MODEL_INFO}: format_version = {info.get('format_version')!r}; this program reads "
                f"{FORMAT_VERSION}: use a newer seq2seq"
            )
        if not isinstance(info.get("files"), dict) or not isinstance(info.get("identity", {}), dict):
            raise RunError(f"{self.path / MODEL_INFO}: damaged: it does not say which files belong to the model")
        return info

    def load_model(self) -> Transformer:
        """The model to use, in evaluation mode, float32 on the CPU. Raises RunError where files do not fit together."""
        info = self.info()
        if file_hash(self.path / MODEL) != info["files"].get(MODEL):
            raise RunError(f"{self.path / MODEL}: damaged: its SHA-256 is not the one in {MODEL_INFO}")
        tokenizer = self.tokenizer()
        if tokenizer.content_hash() != info.get("identity", {}).get("tokenizer", tokenizer.content_hash()):
            raise RunError(f"{self.path}: the tokenizer is damaged, or not the one that the model was trained with")
        model = build_model(self.config(), tokenizer)
        load_weights(model, read_tensors(self.path / MODEL), str(self.path / MODEL))
        return model.eval()

    # Hashes of the training sources

    def write_source_hashes(self, hashes: Mapping[str, NDArray[np.int64]]) -> None:
        with replacing(self.path / SOURCE_HASHES) as temporary:
            save_arrays(dict(hashes), temporary)

    def source_hashes(self) -> dict[str, NDArray[np.int64]] | None:
        """Sorted 64-bit hashes, "exact" and "normalized"; None for a run that has none."""
        path = self.path / SOURCE_HASHES
        if not path.exists():
            return None
        try:
            hashes = dict(load_arrays(path))
        except (SafetensorError, OSError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from None
        if hashes.keys() != {"exact", "normalized"}:
            raise RunError(f"{path}: damaged: it has {', '.join(map(repr, hashes))} for 'exact' and 'normalized'")
        return hashes

    # Checkpoints

    def checkpoint_path(self, step: int) -> Path:
        return self.path / CHECKPOINTS / f"step-{step:08d}"

    def save_checkpoint(
        self, step: int, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: Mapping[str, Any]
    ) -> Checkpoint:
        """Writes a checkpoint beside its place and renames the folder: it is complete or does not exist."""
        final = self.checkpoint_path(step)
        final.parent.mkdir(exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".saving-", dir=final.parent))
        try:
            write_tensors(temporary / MODEL, model)
            write_tensors(temporary / OPTIMIZER, optimizer)
            files = {name: file_hash(temporary / name) for name in (MODEL, OPTIMIZER)}
            write_json(temporary / STATE, {**state, "step": step, "files": files})
            os.chmod(temporary, 0o755)
            if final.exists():
                shutil.rmtree(final)
            os.replace(temporary, final)
            sync_folder(final.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return Checkpoint(final, step)

    def checkpoints(self) -> list[Checkpoint]:
        """Complete checkpoints, oldest first."""
        found = []
        for path in (self.path / CHECKPOINTS).glob("step-*"):
            with contextlib.suppress(ValueError):
                step = int(path.name.removeprefix("step-"))
                if (path / STATE).exists() and (path / MODEL).exists():
                    found.append(Checkpoint(path, step))
        return sorted(found, key=lambda checkpoint: checkpoint.step)

    def latest_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint from which training can go on."""
        resumable = [checkpoint for checkpoint in self.checkpoints() if checkpoint.resumable()]
        return resumable[-1] if resumable else None

    def prune_checkpoints(self, keep: set[int], *, resumable: int = 2) -> None:
        """Removes all checkpoints but those of the given steps, and optimizers of all but the newest `resumable`."""
        kept = []
        for checkpoint in self.checkpoints():
            if checkpoint.step in keep:
                kept.append(checkpoint)
            else:
                shutil.rmtree(checkpoint.path, ignore_errors=True)
        for checkpoint in kept[:-resumable]:
            (checkpoint.path / OPTIMIZER).unlink(missing_ok=True)

    def clean(self) -> None:
        """Removes what an interrupted save or a finished preparation left behind."""
        for path in (self.path / CHECKPOINTS).glob(".saving-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in _temporary_files(self.path):
            path.unlink(missing_ok=True)


def build_model(config: Config, tokenizer: Tokenizer) -> Transformer:
    """A fresh model for a configuration and its vocabularies, drawn from torch's current random state."""
    return Transformer(
        config.model, tokenizer.source_vocab_size, tokenizer.target_vocab_size, shared=config.tokenizer.shared
    )


def load_weights(model: Transformer, tensors: Mapping[str, Tensor], name: str) -> None:
    """Copies tensors into a model. Raises RunError, naming the first that is missing, unknown or misshapen."""
    own = model.state_dict()
    for key in sorted(own.keys() | tensors.keys()):
        if key not in tensors:
            raise RunError(f"{name}: lacks the tensor {key}")
        if key not in own:
            raise RunError(f"{name}: has a tensor {key} that the configured model does not")
        if own[key].shape != tensors[key].shape:
            raise RunError(
                f"{name}: {key} has shape {tuple(tensors[key].shape)}, the configuration says {tuple(own[key].shape)}"
            )
    model.load_state_dict(dict(tensors))


def remove_run(path: Path) -> None:
    """Removes the files of a run and nothing else that may lie in the folder.

    Not the prepared corpus, which every training makes anew, and which may be open.
    """
    for own in (*(path / name for name in RUN_FILES), *_temporary_files(path)):
        own.unlink(missing_ok=True)
    shutil.rmtree(path / CHECKPOINTS, ignore_errors=True)


def _temporary_files(path: Path) -> list[Path]:
    """What writers that were killed left in a run folder."""
    return [left for name in RUN_FILES for left in path.glob(f".{name}.*.tmp")]


# Files


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path}: not a JSON object")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: cannot be read as safetensors: {error}") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    on_cpu = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(on_cpu, temporary)


def write_atomic(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path to write to; synchronises it and renames it to `path`, or removes it on an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise RunError(str(unwritable(path, error))) from None
    except SafetensorError as error:
        raise RunError(f"{path}: cannot be written ({error}); see whether the disk is full") from None
    finally:
        with contextlib.suppress(OSError):  # there is none once all went well, nor where it could not be made
            temporary.unlink()


def sync_folder(path: Path) -> None:
    """Makes a rename in this folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
