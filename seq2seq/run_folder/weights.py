"""A model for a configuration, and weights for a model: compared before anything is allocated for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from seq2seq.config import Config, ModelConfig
from seq2seq.model.shapes import Shapes, parameter_shapes
from seq2seq.model.transformer import Transformer
from seq2seq.run_folder.files import DamagedError, RunError, file_hash
from seq2seq.run_folder.tensor_header import HeaderError, physical_memory, read_header
from seq2seq.text.tokenizer import Tokenizer

BYTES = 4  # of a parameter, in float32


def build_model(config: Config, tokenizer: Tokenizer) -> Transformer:
    """A fresh model for a configuration and its vocabularies, drawn from torch's current random state.

    Raises RunError, before it is made, where the machine does not have the memory for it.
    """
    parameters = sum(math.prod(shape) for shape in _configured_shapes(config, tokenizer).values())
    if BYTES * parameters > physical_memory():
        raise RunError(
            f"the configuration asks for {parameters:,} parameters, {BYTES * parameters / 1e9:,.0f} GB: more than this "
            "machine has memory; lower model.d_model, model.d_ff or the number of layers"
        )
    model = Transformer(
        config.model, tokenizer.source_vocab_size, tokenizer.target_vocab_size, shared=config.tokenizer.shared
    ).float()  # whatever torch's default type is
    made = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    _check_shapes(
        _configured_shapes(config, tokenizer), made, "Transformer, whose parameters seq2seq/model/shapes.py lists"
    )
    return model


def check_weights(path: Path, config: Config, tokenizer: Tokenizer, expected_hash: object) -> None:
    """Raises RunError where a file of weights is not what the configuration says, or does not have this SHA-256."""
    try:
        header = read_header(path, ("F32",))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    except HeaderError as error:
        raise DamagedError(f"{path}: damaged: {error}") from None
    own = _configured_shapes(config, tokenizer)
    given = {name: tensor.shape for name, tensor in header.items()}
    # Of another size it is not read first, to be hashed: it may be a terabyte of nothing.
    if sum(BYTES * math.prod(shape) for shape in own.values()) != sum(tensor.num_bytes for tensor in header.values()):
        _check_shapes(own, given, str(path))
    if file_hash(path) != expected_hash:
        raise DamagedError(f"{path}: damaged: its SHA-256 is not the one in model.json")
    _check_shapes(own, given, str(path))


def check_network(config: ModelConfig, recorded: object, path: Path) -> None:
    """Raises RunError where config.toml has another network than model.json says was trained: shapes do not tell all.

    recorded: None for a run of an earlier version, which did not say.
    """
    for name, value in config.model_dump(mode="json").items():
        trained = recorded.get(name, value) if isinstance(recorded, dict) else value
        if trained != value and not name.endswith("dropout"):  # that was for training
            raise RunError(f"{path}: model.{name} = {value!r}, but the model has {trained!r:.60}: put it back")


def load_weights(model: Transformer, tensors: Mapping[str, Tensor], name: str) -> None:
    """Copies tensors into a model. Raises RunError, naming the first that is missing, unknown or misshapen."""
    own, given = ({key: tuple(tensor.shape) for key, tensor in side.items()} for side in (model.state_dict(), tensors))
    _check_shapes(own, given, name)
    model.load_state_dict(dict(tensors))


def _configured_shapes(config: Config, tokenizer: Tokenizer) -> Shapes:
    return parameter_shapes(
        config.model, tokenizer.source_vocab_size, tokenizer.target_vocab_size, shared=config.tokenizer.shared
    )


def _check_shapes(own: Shapes, given: Shapes, name: str) -> None:
    for key in sorted(own.keys() | given.keys()):
        if key not in given:
            raise RunError(f"{name}: lacks the tensor {key}")
        if key not in own:
            raise RunError(f"{name}: has a tensor {key[:80]!r} that the configured model does not")
        if own[key] != given[key]:
            raise RunError(f"{name}: {key} has shape {given[key]}, the configuration says {own[key]}")
