"""Training that begins with the weights of a finished run: fine-tuning, on other data or with other settings.

The vocabulary comes with the weights, and the sizes of the model have to be the same. Once there is a checkpoint, the
run stands on its own: the one that it began with may be gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seq2seq.config import Config, ConfigError, ModelConfig
from seq2seq.errors import UserError
from seq2seq.model.shapes import parameter_shapes
from seq2seq.model.transformer import Transformer
from seq2seq.run import Run
from seq2seq.run_folder.checkpoints import MODEL
from seq2seq.run_folder.files import RunError
from seq2seq.run_folder.weights import check_weights
from seq2seq.text.tokenizer import Tokenizer

Hashes = Mapping[str, NDArray[np.int64]]

FIELD = "training.init_from"
INITIAL = "initial_model"  # in a run's identity: the SHA-256 of the weights that it began with
# What has to be the same for weights to mean the same.
SIZES = ("d_model", "num_heads", "key_size", "d_ff", "num_encoder_layers", "num_decoder_layers", "norm", "activation",
         "positions")  # fmt: skip
# What says how a tokenizer is learned.
LEARNING = ("algorithm", "vocab_size", "character_coverage", "normalization", "byte_fallback", "max_sentences")


class InitialRun:
    """The finished run that a configuration says to begin with."""

    def __init__(self, config: Config, own: Path) -> None:
        """own: the folder of the run that is trained.

        Raises ConfigError where the configuration does not fit to it, RunError where it is no finished run.
        """
        self.path = Path(config.training.init_from)
        if self.path.resolve() == own.resolve():
            raise ConfigError(f"{FIELD} = {self.path}: that is the run to be trained; choose another --run-dir")
        try:
            self.run = Run.open(self.path)
            self.weights_hash = str(self.run.info()["files"].get(MODEL))
            self._config, self._tokenizer = self.run.config(), self.run.tokenizer()
            self._compare(config)
            check_weights(self.path / MODEL, self._config, self._tokenizer, self.weights_hash)
        except ConfigError:
            raise
        except UserError as error:
            raise RunError(f"{FIELD}: {error}") from None

    def _compare(self, config: Config) -> None:
        for name in SIZES:
            wanted, given = getattr(config.model, name), getattr(self._config.model, name)
            if wanted != given:
                field = name if name in ModelConfig.model_fields else "head_size"
                raise self._other(f"model.{field}", given, wanted)
        tokenizer, own = config.tokenizer, self._config.tokenizer
        if tokenizer.shared != own.shared:
            raise self._other("tokenizer.shared", own.shared, tokenizer.shared)
        if tokenizer.source_model and (tokenizer.source_model, tokenizer.target_model) != (
            own.source_model, own.target_model,
        ):  # fmt: skip
            raise ConfigError(
                f"{FIELD} and tokenizer.source_model are both given: the tokenizer is that of the run; keep one of them"
            )
        sizes = self._tokenizer.source_vocab_size, self._tokenizer.target_vocab_size
        shapes = [parameter_shapes(model, *sizes, shared=own.shared) for model in (config.model, self._config.model)]
        if shapes[0] != shapes[1]:
            for name in ("tied_embeddings", "max_positions"):
                if getattr(config.model, name) != getattr(self._config.model, name):
                    raise self._other(f"model.{name}", getattr(self._config.model, name), getattr(config.model, name))

    def remarks(self, config: Config) -> list[str]:
        """What whoever begins with it should know: that it is not finished, that settings count for nothing."""
        found = [remark] if (remark := self.run.remark()) else []
        for name in LEARNING:
            wanted, given = getattr(config.tokenizer, name), getattr(self._config.tokenizer, name)
            if wanted != given:
                found.append(f"tokenizer.{name} = {wanted} counts for nothing: the vocabulary is that of {self.path}")
        return found

    def _other(self, field: str, given: object, wanted: object) -> ConfigError:
        return ConfigError(
            f"{FIELD} = {self.path}: that model has {field} = {_toml(given)}, this configuration {_toml(wanted)}: make "
            f"them the same, or take the run's own recipe, {self.path / 'config.toml'}"
        )

    def tokenizer(self) -> Tokenizer:
        """The vocabulary of the weights."""
        return self._tokenizer

    def load(self, model: Transformer) -> None:
        """Copies its weights into a model. Raises RunError where its files are damaged, or others than at first."""
        loaded = self.run.load_model()
        if self.run.info()["files"].get(MODEL) != self.weights_hash:
            raise RunError(f"{FIELD}: {self.path}: another model was written there meanwhile: start again")
        model.load_state_dict(loaded.state_dict())


def initial_run(config: Config, run: Run, *, resume: bool) -> InitialRun | None:
    """The run to begin with, where one is configured and needed: to go on from a checkpoint, only if it has moved."""
    path = config.training.init_from
    if not path:
        return None
    if resume:
        run.clean_checkpoints()  # one may have been set aside while it was replaced
        if run.latest_checkpoint() and path == run.config().training.init_from:
            return None
    return InitialRun(config, run.path)


def origin(config: Config, identity: Mapping[str, str]) -> dict[str, str] | None:
    """The name and the weights of the run that training began with; not its path, which is nobody else's business."""
    if not config.training.init_from:
        return None
    return {"name": Path(config.training.init_from).name, "model_sha256": identity[INITIAL]}


def all_sources(hashes: Hashes, before: Run) -> Hashes | None:
    """Hashes of the sources that the model sees now and of those that `before` says it has seen, sorted, each once.

    None where `before` does not say: then nobody can tell what the model has not seen.
    """
    try:
        earlier = before.source_hashes()
    except RunError:
        earlier = None
    if earlier is None:
        return None
    return {name: np.union1d(values, earlier[name]) for name, values in hashes.items()}


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
