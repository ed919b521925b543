"""This project, through its own training: `seq2seq.pipeline.train`, and what it writes to `metrics.jsonl`."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Mapping
from functools import wraps
from typing import Any

import torch
from common import PAD, RECIPE, Record, Settings, peak_memory_bytes, run_child
from parts import PartClock
from torch import Tensor

from seq2seq.config import Config
from seq2seq.model.layers import DecoderLayer, EncoderLayer
from seq2seq.model.transformer import Transformer
from seq2seq.pipeline import train
from seq2seq.recipe import load_config
from seq2seq.text.batching import Batch


class Listener:
    """Passes on what the training says."""

    def message(self, text: str) -> None:
        print(text, file=sys.stderr)

    def working(self, what: str, done: int = 0, total: int | None = None) -> None: ...

    def progress(self, record: Mapping[str, Any]) -> None:
        print(dict(record), file=sys.stderr)

    def validation(self, record: Mapping[str, Any]) -> None:
        print(dict(record), file=sys.stderr)


class Padding:
    """Counts the padding of every batch that is made for training, however batches are laid out."""

    def __init__(self) -> None:
        # Real and padded tokens of each batch. Threads may make batches side by side: appending needs no lock.
        self.counts: dict[str, list[tuple[int, int]]] = {"source": [], "target_output": []}

    def watch(self) -> None:
        """Begins to count, for the rest of the process."""
        make = Batch.__init__

        @wraps(make)
        def counting(batch: Batch, *arguments: Any, **options: Any) -> None:
            make(batch, *arguments, **options)
            if torch.is_grad_enabled():  # it is not during validation
                for side, counts in self.counts.items():
                    ids: Tensor = getattr(batch, side)
                    counts.append((int((ids != PAD).sum()), ids.numel()))

        Batch.__init__ = counting  # type: ignore[method-assign,assignment]

    def share(self, side: str) -> float:
        """Which part of the padded tokens of a side was padding, 0 to 1."""
        real = sum(count for count, _ in self.counts[side])
        return 1.0 - real / sum(count for _, count in self.counts[side])


def configure(settings: Settings) -> Config:
    """The experiment's settings as a configuration: preset `tiny` with the tokenizer and the schedule of all systems.

    Validation comes once, at the end, and translates a single sentence.
    """
    more_dropout = settings.dropout if settings.dropout_everywhere else 0.0
    values = {
        "tokenizer.source_model": settings.tokenizer_path,
        "model.d_model": settings.d_model,
        "model.d_ff": settings.d_ff,
        "model.num_heads": settings.num_heads,
        "model.num_encoder_layers": settings.num_layers,
        "model.num_decoder_layers": settings.num_layers,
        "model.dropout": settings.dropout,
        "model.attention_dropout": more_dropout,
        "model.activation_dropout": more_dropout,
        "model.norm": "post",
        "training.max_steps": settings.total_steps,
        "training.batch_tokens": settings.batch_tokens,
        "training.label_smoothing": settings.label_smoothing,
        "training.optimizer": "adam",
        "training.weight_decay": 0.0,
        "training.schedule": "inverse_sqrt",
        "training.warmup_steps": settings.rate_warmup,
        "training.learning_rate_scale": settings.rate_scale,
        "training.adam_beta1": settings.adam_beta1,
        "training.adam_beta2": settings.adam_beta2,
        "training.precision": settings.precision,
        "training.device": "cpu",
        "training.seed": settings.seed,
        "training.num_threads": settings.threads,
        "training.log_every": math.gcd(settings.warmup_steps, settings.steps),
        "training.validate_every": settings.total_steps,
        "training.save_every": settings.total_steps,
        "training.max_validation_sentences": 1,
        "training.average": "none",
    }
    if settings.parts:
        values |= {"data.valid_source": "", "data.valid_target": ""}
    return load_config(RECIPE, overrides=[f"{key}={value}" for key, value in values.items()])


def read_metrics(settings: Settings) -> Record:
    """Tokens and seconds of the timed steps, and the validation loss at the end, from `metrics.jsonl`."""
    text = (settings.run_dir / "metrics.jsonl").read_text(encoding="utf-8")
    before, tokens, seconds, validation = 0, 0, 0.0, None
    for line in text.splitlines():
        record = json.loads(line)
        validation = record.get("valid_loss", validation)
        if "target_tokens_per_second" not in record:
            continue
        window, before = record["target_tokens"] - before, record["target_tokens"]
        if record["step"] > settings.warmup_steps:
            tokens += window
            seconds += window / record["target_tokens_per_second"]
    return {
        "target_tokens": tokens,
        "seconds": seconds,
        "target_tokens_per_second": tokens / seconds,
        "validation_nll": validation,
    }


def measure_parts(settings: Settings) -> Record:
    clock = PartClock(settings)
    clock.watch(Transformer, ("encode", "packed_states"), EncoderLayer, DecoderLayer)
    train(configure(settings), settings.run_dir, Listener())
    tokens = read_metrics(settings)["target_tokens"]
    return {"milliseconds_per_step": clock.milliseconds_per_step(), "target_tokens": tokens}


def measure(settings: Settings) -> Record:
    shutil.rmtree(settings.run_dir, ignore_errors=True)
    if settings.parts:
        return measure_parts(settings)
    padding = Padding()
    padding.watch()
    train(configure(settings), settings.run_dir, Listener())
    info = json.loads((settings.run_dir / "model.json").read_text(encoding="utf-8"))
    return {
        **read_metrics(settings),
        "padding_source": padding.share("source"),
        "padding_target": padding.share("target_output"),
        "parameters": info["num_parameters"],
        "pairs": info["corpus"]["kept"],
        "peak_memory_bytes": peak_memory_bytes(),
    }


if __name__ == "__main__":
    run_child(measure)
