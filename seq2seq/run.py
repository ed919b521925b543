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
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from torch import Tensor

from seq2seq.checkpoints import CHECKPOINTS, MODEL, CheckpointFolder
from seq2seq.checkpoints import Checkpoint as Checkpoint
from seq2seq.config import Config, ConfigError
from seq2seq.files import RunError as RunError
from seq2seq.files import (
    file_hash,
    locked,
    read_bytes,
    read_json,
    read_tensors,
    replacing,
    write_atomic,
    write_json,
    write_tensors,
)
from seq2seq.model.transformer import Transformer
from seq2seq.recipe import dump_config, parse_config
from seq2seq.text.tokenizer import SHARED_FILE, SOURCE_FILE, TARGET_FILE, Tokenizer, TokenizerError

FORMAT_VERSION = 1
CONFIG, MODEL_INFO = "config.toml", "model.json"
METRICS, CARD = "metrics.jsonl", "README.md"
SOURCE_HASHES = "training_sources.safetensors"
RUN_FILES = (
    MODEL_INFO, MODEL, CONFIG, METRICS, CARD, SOURCE_HASHES, SHARED_FILE, SOURCE_FILE, TARGET_FILE, "curves.png",
)  # fmt: skip
# Hidden: a folder `corpus` beside a run may be the user's own.
CORPUS, LOCK = ".corpus", ".lock"


class Run(CheckpointFolder):
    """One run folder. Open it with `Run.open` or make it with `Run.create`."""

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

    def locked(self) -> AbstractContextManager[None]:
        """For as long as something writes this run. Raises RunError where another process does."""
        return locked(
            self.path / LOCK,
            f"{self.path}: another training is writing this run: wait until it ends, or choose another --run-dir",
        )

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
            command = resume_command(self.path)
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
        tensors = read_tensors(self.path / MODEL)
        load_weights(model, tensors, str(self.path / MODEL))
        for name, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise RunError(
                    f"{self.path / MODEL}: {name} has values that are not finite: train again, with a lower "
                    "training.learning_rate_scale"
                )
        return model.eval()

    def remark(self) -> str | None:
        """What a user of the model should know: that training went on beyond it and has not come to an end."""
        training, checkpoints = self.info().get("training"), self.checkpoints()
        steps = training.get("steps") if isinstance(training, dict) else None
        if not isinstance(steps, int) or not checkpoints or checkpoints[-1].step <= steps:
            return None
        return (
            f"{self.path}: this model is of step {steps:,}, and training went on to step {checkpoints[-1].step:,}: "
            f"finish it with `{resume_command(self.path)}`"
        )

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

    def clean(self) -> None:
        """Removes what an interrupted save or removal left behind."""
        self.clean_checkpoints()
        for path in _temporary_files(self.path):
            path.unlink(missing_ok=True)


def resume_command(path: Path) -> str:
    """What to type to continue a run."""
    return shlex.join(["seq2seq", "train", "--run-dir", str(path), "--resume"])


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
