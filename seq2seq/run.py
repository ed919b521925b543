"""A run folder on disk: configuration, tokenizer, weights, checkpoints, metrics.

    config.toml            every field that has a value, paths resolved
    tokenizer.model        SentencePiece (or source.model and target.model)
    model.safetensors      the model to use
    model.json             format version, sizes, hashes, how it was trained, validation scores
    training_sources.safetensors   hashes of the training sources, for the benchmark's overlap report
    identity.json          content hashes of the corpus, the validation set, the tokenizer, the weights at the
                           beginning; the settings that are kept
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

from seq2seq.atomic import sync
from seq2seq.config import Config, ConfigError
from seq2seq.errors import unreadable
from seq2seq.model.transformer import Transformer
from seq2seq.recipe import dump_config, parse_config
from seq2seq.run_folder.checkpoints import CHECKPOINTS, MODEL, OVERHEAD_BYTES, STATE, CheckpointFolder, tensor_bytes
from seq2seq.run_folder.files import (
    DamagedError,
    RunError,
    check_space,
    disk_errors,
    file_hash,
    json_bytes,
    locked,
    naming,
    read_bytes,
    read_json,
    read_tensors,
    replacing,
    save_tensors,
    write_atomic,
    write_json,
)
from seq2seq.run_folder.run_files import (
    CONFIG,
    IDENTITY,
    LOCK,
    METRICS,
    MODEL_INFO,
    REMOVED,
    SOURCE_HASHES,
    check_place,
    check_run_links,
    holds_run,
    remove_run,
    temporary_files,
)
from seq2seq.run_folder.tensor_header import HeaderError, read_header
from seq2seq.run_folder.weights import build_model, check_network, check_weights, load_weights
from seq2seq.text.tokenizer import SHARED_FILE, SOURCE_FILE, TARGET_FILE, Tokenizer, TokenizerError

FORMAT_VERSION = 1
MAX_METRICS_LINE = 1 << 20  # characters; ours have some 300


class Run(CheckpointFolder):
    """One run folder. Open it with `Run.open` or make it with `Run.create`."""

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether the folder holds a run, or what is left of one, which must not be overwritten unasked."""
        return holds_run(path)

    @classmethod
    def create(cls, path: Path, *, overwrite: bool = False) -> Run:
        """An empty run folder. Where one holds a run already, raises RunError unless `overwrite`, which removes it.

        Raises RunError also where a run would replace what no run wrote, whether `overwrite` or not.
        """
        _check_name(path)
        check_place(path, overwrite=overwrite)
        if cls.exists(path):
            remove_run(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            sync(path.parent)
        except OSError as error:
            reason = error.strerror
            if isinstance(error, FileExistsError):
                reason = "it is a file" if path.exists() else "it is a link to what is not there"
            raise RunError(
                f"{path}: the run folder cannot be made: {reason}; choose another folder with --run-dir"
            ) from None
        return cls(path)

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """An existing run. Raises RunError where there is none."""
        path = Path(path)
        _check_name(path)
        try:
            if path.is_file():
                raise RunError(f"{path}: is a file; the folder of a run is expected there")
            if not path.is_dir():
                raise RunError(f"{path}: no such run folder; make one with `seq2seq train ... --run-dir {path}`")
            if not (path / CONFIG).exists():
                checkpoint = (path / STATE).exists() and path.parent.name == CHECKPOINTS
                run = f"; it is a checkpoint of {path.parent.parent}: name that" if checkpoint else ""
                raise RunError(f"{path}: not a run folder: it has no {CONFIG}{run}")
        except OSError as error:
            raise RunError(unreadable(path, error, "folder")) from None
        check_run_links(path)
        return cls(path)

    def locked(self) -> AbstractContextManager[None]:
        """For as long as something writes this run. Raises RunError where another process does."""
        check_run_links(self.path)  # what is written through a link would be written elsewhere
        return locked(
            self.path / LOCK,
            f"{self.path}: another training{{holder}} is writing this run: wait until it ends, or choose another "
            "--run-dir",
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
            raise RunError(f"{error}{self._remedy()}") from None

    def write_tokenizer(self, tokenizer: Tokenizer) -> None:
        files = tokenizer.files()
        for name, content in files.items():
            write_atomic(self.path / name, content)
        for name in {SHARED_FILE, SOURCE_FILE, TARGET_FILE} - files.keys():  # left by a run that came to nothing
            (self.path / name).unlink(missing_ok=True)

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Adds one line to metrics.jsonl."""
        path = self.path / METRICS
        with naming(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def sync_metrics(self) -> int:
        """Makes what was logged durable, as a checkpoint that counts on it needs it to be; returns its size."""
        path = self.path / METRICS
        if not path.exists():
            return 0
        with naming(path):
            sync(path)
        return path.stat().st_size

    def cut_metrics(self, size: int) -> None:
        """Drops what was logged after a checkpoint that had `size` bytes of metrics."""
        path = self.path / METRICS
        if path.exists() and path.stat().st_size > size:
            os.truncate(path, size)

    def metrics(self) -> Iterator[dict[str, Any]]:
        path = self.path / METRICS
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as file:
                while line := file.readline(MAX_METRICS_LINE):
                    with contextlib.suppress(ValueError, RecursionError):  # a line cut short by a crash
                        record = json.loads(line)
                        if isinstance(record, dict):
                            yield record

    # The model to use

    def sound(self) -> bool:
        """Whether there is a model to use, and it has the hash that it should have."""
        try:
            return self.finished() and file_hash(self.path / MODEL) == self.info()["files"].get(MODEL)
        except RunError:
            return False

    def _remedy(self) -> str:
        """What helps against damaged files of a finished model, as the end of a message."""
        with contextlib.suppress(RunError):
            if self.latest_checkpoint() is None:
                return "; copy it anew"
        return f"; where its corpus still is, `{resume_command(self.path)}` makes it anew"

    def finished(self) -> bool:
        return (self.path / MODEL).exists() and (self.path / MODEL_INFO).exists()

    def write_model(self, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
        """Writes model.safetensors, then model.json with its hash: a model without its json is not finished.

        Both are on the disk before anything is replaced: where there is no space for them, an earlier model stays.
        """
        check_space(self.path / MODEL, tensor_bytes(tensors) + OVERHEAD_BYTES)
        with replacing(self.path / MODEL_INFO) as new_info, replacing(self.path / MODEL) as new_model:
            save_tensors(new_model, tensors)
            sync(new_model)
            info = {"format_version": FORMAT_VERSION, **info, "files": {MODEL: file_hash(new_model)}}
            with naming(self.path / MODEL_INFO):
                new_info.write_bytes(json_bytes(info))
                sync(new_info)
            (self.path / MODEL_INFO).unlink(missing_ok=True)

    def info(self) -> dict[str, Any]:
        """model.json. Raises RunError where training has not finished or the format is a newer one."""
        if not self.finished():
            latest = self.latest_checkpoint()
            where = f" (it is at step {latest.step:,})" if latest else ""
            command = resume_command(self.path)
            raise RunError(f"{self.path}: this run has no finished model{where}: continue it with `{command}`")
        try:
            info = read_json(self.path / MODEL_INFO)
        except RunError as error:
            raise RunError(f"{error}{self._remedy()}") from None
        if "format_version" not in info:
            raise RunError(f"{self.path / MODEL_INFO}: damaged: it has no format_version{self._remedy()}")
        if info["format_version"] != FORMAT_VERSION:
            raise RunError(
                f"{self.path / MODEL_INFO}: format_version = {info['format_version']!r}; this program reads "
                f"{FORMAT_VERSION}: use a newer seq2seq"
            )
        if not isinstance(info.get("files"), dict) or not isinstance(info.get("identity", {}), dict):
            raise RunError(f"{self.path / MODEL_INFO}: damaged: it does not say which files belong to the model")
        return info

    def load_model(self) -> Transformer:
        """The model to use, in evaluation mode, float32 on the CPU. Raises RunError where files do not fit together.

        Nothing is allocated for the weights before the file's header, its size and the configuration have agreed.
        """
        info = self.info()
        tokenizer, config = self.tokenizer(), self.config()
        if tokenizer.content_hash() != info.get("identity", {}).get("tokenizer", tokenizer.content_hash()):
            raise RunError(
                f"{self.path}: the tokenizer is damaged, or not the one that the model was trained with{self._remedy()}"
            )
        if config.tokenizer.shared != tokenizer.shared:
            given = "one vocabulary" if tokenizer.shared else "two vocabularies"
            raise RunError(f"{self.path}: there are files of {given}, the configuration says otherwise: copy it anew")
        check_network(config.model, info.get("model"), self.path / CONFIG)
        path = self.path / MODEL
        try:
            check_weights(path, config, tokenizer, info["files"].get(MODEL))
        except DamagedError as error:
            raise DamagedError(f"{error}{self._remedy()}") from None
        model = build_model(config, tokenizer)
        tensors = read_tensors(path)
        load_weights(model, tensors, str(path))
        for name, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise RunError(
                    f"{path}: {name} has values that are not finite: train again, with a lower "
                    "training.learning_rate_scale"
                )
        return model.eval()

    def trained_steps(self) -> int | None:
        """How many steps of training the model to use has had; None where model.json does not say."""
        training = self.info().get("training")
        steps = training.get("steps") if isinstance(training, dict) else None
        return steps if isinstance(steps, int) else None

    def remark(self) -> str | None:
        """What a user of the model should know: that training went on beyond it and has not come to an end."""
        steps, checkpoints = self.trained_steps(), []
        with contextlib.suppress(RunError):  # they may be private to who trained it
            checkpoints = self.checkpoints()
        if steps is None or not checkpoints or checkpoints[-1].step <= steps:
            return None
        return (
            f"{self.path}: this model is of step {steps:,}, and training went on to step {checkpoints[-1].step:,}: "
            f"finish it with `{resume_command(self.path)}`"
        )

    # What the run was trained on

    def write_identity(self, hashes: Mapping[str, str]) -> None:
        write_json(self.path / IDENTITY, hashes)

    def identity(self) -> dict[str, str]:
        """Content hashes of what the run began with; none for a run that has not got so far."""
        return dict(read_json(self.path / IDENTITY)) if (self.path / IDENTITY).exists() else {}

    def known_identity(self) -> dict[str, str]:
        """The same from wherever it can be read: identity.json, the checkpoints and model.json all have it."""
        known: dict[str, str] = {}
        readers = [
            lambda: self.info().get("identity"),
            *(one.state_identity for one in self.checkpoints()),
            self.identity,
        ]
        for read in readers:
            with contextlib.suppress(RunError):
                if isinstance(found := read(), dict):
                    known |= {name: value for name, value in found.items() if isinstance(value, str)}
        return known

    def write_source_hashes(self, hashes: Mapping[str, NDArray[np.int64]] | None) -> None:
        """None: they are not known."""
        if hashes is None:
            (self.path / SOURCE_HASHES).unlink(missing_ok=True)
            return
        with replacing(self.path / SOURCE_HASHES) as temporary, disk_errors():
            save_arrays(dict(hashes), temporary)

    def source_hashes(self) -> dict[str, NDArray[np.int64]] | None:
        """Sorted 64-bit hashes, "exact" and "normalized"; None for a run that has none."""
        path = self.path / SOURCE_HASHES
        if not path.exists():
            return None
        try:
            header = read_header(path)
            hashes = dict(load_arrays(path))
        except (SafetensorError, OSError, HeaderError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from None
        if hashes.keys() != {"exact", "normalized"}:
            raise RunError(f"{path}: damaged: it has {', '.join(map(repr, hashes))} for 'exact' and 'normalized'")
        if any(tensor.dtype != "I64" or len(tensor.shape) != 1 for tensor in header.values()):
            raise RunError(f"{path}: damaged: its hashes are not lists of 64-bit integers")
        return hashes

    def clean(self) -> None:
        """Removes what an interrupted save or removal left behind."""
        self.clean_checkpoints()
        shutil.rmtree(self.path / REMOVED, ignore_errors=True)
        for path in temporary_files(self.path):
            path.unlink(missing_ok=True)


def resume_command(path: Path) -> str:
    """What to type to continue a run."""
    return shlex.join(["seq2seq", "train", "--run-dir", str(path), "--resume"])


def _check_name(path: Path) -> None:
    """Raises RunError for a name that is not UTF-8, which the libraries that read and write weights do not take."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise RunError(f"{path}: the name of a run's folder has to be UTF-8; rename it, or choose another") from None
