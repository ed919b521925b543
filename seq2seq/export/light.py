"""What can be known of a run without importing torch, which takes longer than translating a page of text."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seq2seq.config import Config
from seq2seq.errors import OptionError, UserError
from seq2seq.model.shapes import parameter_shapes
from seq2seq.recipe import parse_config
from seq2seq.run_folder.checkpoints import CHECKPOINTS, MODEL
from seq2seq.run_folder.run_files import CONFIG, MODEL_INFO
from seq2seq.run_folder.tensor_header import HeaderError, physical_memory, read_header
from seq2seq.text.tokenizer import SHARED_FILE, SOURCE_FILE, TARGET_FILE, Tokenizer
from seq2seq.untrusted import MAX_CONFIG_BYTES, MAX_JSON_BYTES, check_links, open_regular, read_regular

FORMAT_VERSION = 1  # of an export's certificate

# CTranslate2's names: the type of the matrices, then, after "_", of everything else.
QUANTIZATIONS = (
    "float32", "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16",
)  # fmt: skip


def check_quantization(name: str) -> None:
    """Raises OptionError for a quantisation that CTranslate2 does not have."""
    if name not in QUANTIZATIONS:
        raise OptionError(f"quantization {name}: choose one of {', '.join(QUANTIZATIONS)}")


@dataclass(frozen=True)
class LightRun:
    """A finished run: where it is, its configuration and tokenizer. Open it with `LightRun.open`."""

    path: Path
    config: Config
    tokenizer: Tokenizer

    @classmethod
    def open(cls, path: Path) -> LightRun:
        """Raises RunError as `Run.open` and `Run.info` do, where the folder holds no finished run."""
        try:
            check_links(path, (CONFIG, MODEL, MODEL_INFO, SHARED_FILE, SOURCE_FILE, TARGET_FILE))
            text = read_regular(path / CONFIG, MAX_CONFIG_BYTES).decode("utf-8")
            config = parse_config(text, origin=str(path / CONFIG))
            if not ((path / MODEL).exists() and (path / MODEL_INFO).exists()):
                raise FileNotFoundError
            return cls(path, config, Tokenizer.load(path))
        except (OSError, UnicodeDecodeError, UserError):
            from seq2seq.run import Run  # it says what is wrong

            run = Run.open(path)
            run.info()
            return cls(path, run.config(), run.tokenizer())

    def hashes(self) -> dict[str, str]:
        """What an export was made from: SHA-256 of the weights, of the tokenizer, of the configuration.

        Raises RunError as `Run.load_model` does where the weights are not the configuration's: then they are not read.
        """
        if not self._has_weights():
            from seq2seq.run import Run  # it says what is wrong

            Run.open(self.path).load_model()
        digests = {name: sha256_of(self.path / name) for name in (MODEL, CONFIG)}
        return {**digests, "tokenizer": self.tokenizer.content_hash()}

    def _has_weights(self) -> bool:
        """Whether the file of weights says that it holds what the configuration asks for, and has that size."""
        sizes = self.tokenizer.source_vocab_size, self.tokenizer.target_vocab_size
        expected = parameter_shapes(self.config.model, *sizes, shared=self.config.tokenizer.shared)
        try:
            return {name: info.shape for name, info in read_header(self.path / MODEL, ("F32",)).items()} == expected
        except (OSError, HeaderError):
            return False

    def remark(self) -> str | None:
        """What `Run.remark` says, where it has something to say."""
        try:
            training = json.loads(read_regular(self.path / MODEL_INFO, MAX_JSON_BYTES)).get("training")
            steps = training.get("steps") if isinstance(training, dict) else None
            kept = [int(entry.name.removeprefix("step-")) for entry in (self.path / CHECKPOINTS).glob("step-*")]
        except (OSError, ValueError, AttributeError, RecursionError):
            return None
        if not isinstance(steps, int) or all(step <= steps for step in kept):
            return None
        from seq2seq.run import Run

        return Run.open(self.path).remark()


def sha256_of(path: Path) -> str:
    """As hexadecimal digits. Raises OSError where it is no plain file, or larger than the machine's memory."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > physical_memory():  # nobody could use it: it may be a terabyte of nothing
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_certificate(path: Path) -> dict[str, Any] | None:
    """A certificate, where there is one that can be read."""
    try:
        value = json.loads(read_regular(path, MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
