"""Training that begins with the weights of a finished run: fine-tuning, on other data or with other settings.

The vocabulary comes with the weights, and the sizes of the model have to be the same. Once there is a checkpoint, the
run stands on its own: the one that it began with may be gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seq2seq.checkpoints import MODEL
from seq2seq.config import Config, ConfigError, ModelConfig
from seq2seq.errors import UserError
from seq2seq.files import RunError
from seq2seq.model.transformer import Transformer
from seq2seq.run import Run
from seq2seq.text.tokenizer import Tokenizer

FIELD = "training.init_from"
INITIAL = "initial_model"  # in a run's identity: the SHA-256 of the weights that it began with
# What another model may have with the same weights.
SIZES = ("d_model", "num_heads", "key_size", "d_ff", "num_encoder_layers", "num_decoder_layers", "norm", "activation",
         "positions")  # fmt: skip


class InitialRun:
    """The finished run that a configuration says to begin with."""

    def __init__(self, config: Config, own: Path) -> None:
        """own: the folder of the run that is trained.

        Raises ConfigError where the configuration does not fit to it, RunError where it is no finished run.
        """
        self.path = Path(config.training.init_from)
        if self.path.resolve() == own.resolve():
            raise ConfigError(f"{FIELD} = {self.path}: that is the run to be trained; choose another --run-dir")
        if config.tokenizer.source_model:
            raise ConfigError(
                f"{FIELD} and tokenizer.source_model are both given: the tokenizer is that of the run; keep one of them"
            )
        try:
            self.run = Run.open(self.path)
            self.weights_hash = str(self.run.info()["files"].get(MODEL))
            self._config = self.run.config()
        except UserError as error:
            raise RunError(f"{FIELD}: {error}") from None
        self._compare(config)

    def _compare(self, config: Config) -> None:
        for name in SIZES:
            wanted, given = getattr(config.model, name), getattr(self._config.model, name)
            if wanted != given:
                field = name if name in ModelConfig.model_fields else "head_size"
                raise self._other(f"model.{field}", given, wanted)
        if config.tokenizer.shared != self._config.tokenizer.shared:
            raise self._other("tokenizer.shared", self._config.tokenizer.shared, config.tokenizer.shared)

    def _other(self, field: str, given: object, wanted: object) -> ConfigError:
        return ConfigError(
            f"{FIELD} = {self.path}: that model has {field} = {_toml(given)}, this configuration {_toml(wanted)}: make "
            f"them the same, or take the run's own recipe, {self.path / 'config.toml'}"
        )

    def tokenizer(self) -> Tokenizer:
        """The vocabulary of the weights."""
        return self.run.tokenizer()

    def source_hashes(self) -> Mapping[str, NDArray[np.int64]] | None:
        """What its model has seen."""
        return self.run.source_hashes()

    def load(self, model: Transformer) -> None:
        """Copies its weights into a model. Raises RunError where its files are damaged."""
        try:
            model.load_state_dict(self.run.load_model().state_dict())
        except RuntimeError as error:  # which embeddings are one
            raise ConfigError(
                f"{FIELD} = {self.path}: that model has other tensors (model.tied_embeddings, model.max_positions?): "
                f"take the run's own recipe, {self.path / 'config.toml'} ({str(error).splitlines()[-1].strip()})"
            ) from None


def merged(
    hashes: Mapping[str, NDArray[np.int64]], earlier: Mapping[str, NDArray[np.int64]] | None
) -> dict[str, NDArray[np.int64]]:
    """The hashes of what the model sees now and of what it has seen before, sorted, each once."""
    if earlier is None:
        return dict(hashes)
    return {name: np.union1d(values, earlier[name]) for name, values in hashes.items()}


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
