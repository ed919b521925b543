"""Runs with tiny random models, sure of their outputs, so that what an export computes can be told from noise."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq.model.transformer import Transformer
from seq2seq.recipe import build_config
from seq2seq.run import Run
from seq2seq.run_folder.weights import build_model
from seq2seq.text.tokenizer import Tokenizer

SHAPE = {"d_model": 32, "num_heads": 4, "d_ff": 48, "num_encoder_layers": 2, "num_decoder_layers": 1}
WORDS = "the a small big cat dog horse sees hears door king queen and often today 12 , . !"
OTHERS = "der die das kleine große Katze Hund Pferd sieht hört Tür König und oft heute 12 , . !"

MakeRun = Callable[..., Path]


@cache
def tokenizer_for(shared: bool, algorithm: str, byte_fallback: bool) -> Tokenizer:
    """Separate vocabularies have different sizes."""
    generator = random.Random(3)
    sources, targets = (
        [" ".join(generator.choices(words.split(), k=7)) for _ in range(200)] for words in (WORDS, OTHERS)
    )

    def learn(sources: list[str], targets: list[str], size: int) -> Tokenizer:
        values = {"vocab_size": size + 280 * byte_fallback, "algorithm": algorithm, "byte_fallback": byte_fallback}
        return Tokenizer.learn(build_config({"tokenizer": values}).tokenizer, sources, targets, seed=1)

    if shared:
        return learn(sources, targets, 70)
    source, target = learn(sources, sources, 70), learn(targets, targets, 60)
    assert source.source_vocab_size != target.source_vocab_size
    return Tokenizer(source.source_bytes, target.source_bytes)


def decide(model: Transformer) -> None:
    """Random weights, biases and norms included, with the logits far enough apart."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
        for weight in {id(w): w for w in (model.target_embedding, model.output_weight)}.values():
            weight.mul_(2.0)


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """make_run(name="run", shared=True, algorithm="bpe", byte_fallback=False, seed=0, **model) -> a finished run."""

    def make(
        name: str = "run",
        *,
        shared: bool = True,
        algorithm: str = "bpe",
        byte_fallback: bool = False,
        seed: int = 0,
        sections: dict[str, Any] | None = None,
        **model: Any,
    ) -> Path:
        tokenizer = tokenizer_for(shared, algorithm, byte_fallback)
        values: dict[str, Any] = {
            "model": {**SHAPE, **model},
            "tokenizer": {"shared": shared},
            "decoding": {"max_extra_length": 10, "max_source_length": 60},
        }
        for section, fields in (sections or {}).items():
            values[section] = {**values.get(section, {}), **fields}
        config = build_config(values)
        run = Run.create(tmp_path / name, overwrite=True)
        run.write_config(config)
        run.write_tokenizer(tokenizer)
        torch.manual_seed(seed)
        network = build_model(config, tokenizer)
        decide(network)
        info = {"identity": {"tokenizer": tokenizer.content_hash()}}
        run.write_model(dict(network.state_dict()), info)
        return tmp_path / name

    return make
