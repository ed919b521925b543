"""Peer `joeynmt`: Joey NMT (Kreutzer et al. 2019) through its own training, configuration and token batches.

Its `Tokens per Sec` counts target tokens without padding, end of sentence included: `Batch.ntokens` is the sum of
`trg != pad` after the beginning of sentence is cut off. That is the unit of this experiment, so nothing is corrected.
On a CPU it trains in float32 only (`fp16: True` is switched off there).

It is given the pieces as words, because its own SentencePiece tokenizer calls a method, `SetVocabulary`, that current
releases of sentencepiece no longer have. That saves it work: its samplers tokenize every sentence anew in each epoch.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import torch
import yaml
from common import BOS, EOS, Record, Settings, peak_memory_bytes, run_child
from joeynmt.batch import Batch
from joeynmt.config import load_config, parse_global_args, set_validation_args
from joeynmt.helpers import make_model_dir
from joeynmt.prediction import predict, prepare
from joeynmt.training import TrainManager

LOGGED = re.compile(r"Step: +(\d+),.*Tokens per Sec: +([\d.]+)")
NEVER = 1_000_000_000


class Counting(TrainManager):  # type: ignore[misc]
    """Joey NMT's trainer, which also notes what was in each batch."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.batches: list[tuple[int, int, int, int]] = []  # target tokens, padded; source tokens, padded

    def _train_step(self, batch: Batch) -> tuple[float, int]:
        real = int(batch.src_mask.sum())
        self.batches.append((batch.ntokens, batch.trg.numel(), real, batch.src.numel()))
        return super()._train_step(batch)  # type: ignore[no-any-return]


class Rates(logging.Handler):
    """Keeps the tokens per second that Joey NMT logs, by step."""

    def __init__(self) -> None:
        super().__init__()
        self.by_step: dict[int, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        logged = LOGGED.search(record.getMessage())
        if logged:
            self.by_step[int(logged[1])] = float(logged[2])


def side(settings: Settings, name: str) -> dict[str, Any]:
    """One side of the `data` section: words are the pieces of the shared tokenizer."""
    return {"lang": name, "level": "word", "voc_file": str(settings.tokenizer_path.with_suffix(".vocab"))}


def stack(settings: Settings) -> dict[str, Any]:
    """Encoder or decoder of the `model` section. Its dropout falls on attention and feed-forward network too."""
    return {
        "type": "transformer",
        "num_layers": settings.num_layers,
        "num_heads": settings.num_heads,
        "embeddings": {"embedding_dim": settings.d_model, "scale": True, "dropout": settings.dropout},
        "hidden_size": settings.d_model,
        "ff_size": settings.d_ff,
        "dropout": settings.dropout,
        "layer_norm": "post",
    }


def training(settings: Settings) -> dict[str, Any]:
    """The `training` section: equation 3 as the schedule, a log line a step, no validation."""
    return {
        "optimizer": "adam",
        "adam_betas": [settings.adam_beta1, settings.adam_beta2],
        "scheduling": "noam",
        "learning_rate": settings.learning_rate(1),
        "learning_rate_factor": settings.rate_scale,
        "learning_rate_warmup": settings.rate_warmup,
        "learning_rate_min": 0.0,
        "normalization": "tokens",
        "loss": "crossentropy",
        "label_smoothing": settings.label_smoothing,
        "batch_size": settings.batch_tokens,
        "batch_type": "token",
        "epochs": NEVER,
        "updates": settings.total_steps,
        "logging_freq": 1,
        "validation_freq": NEVER,
        "early_stopping_metric": "ppl",
    }


def write_config(settings: Settings) -> Path:
    """Joey NMT's configuration file of this training."""
    values = {
        "name": settings.name,
        "joeynmt_version": "2.3.0",
        "model_dir": str(settings.run_dir),
        "use_cuda": False,
        "random_seed": settings.seed,
        "data": {
            "train": str(settings.pieces_path("train")),
            "dev": str(settings.pieces_path("valid")),
            "dataset_type": "plain",
            "src": side(settings, "source"),
            "trg": side(settings, "target"),
            # It puts them first in this order, whatever the file says; everything else keeps the tokenizer's ids.
            "special_symbols": {
                "unk_token": "<unk>", "unk_id": 0, "pad_token": "<pad>", "pad_id": 1,
                "bos_token": "<s>", "bos_id": BOS, "eos_token": "</s>", "eos_id": EOS,
            },
        },
        "testing": {"batch_size": settings.batch_tokens, "batch_type": "token", "eval_metrics": []},
        "training": training(settings),
        "model": {
            "initializer": "xavier_uniform",
            "bias_initializer": "zeros",
            "embed_initializer": "xavier_uniform",
            "tied_embeddings": True,
            "tied_softmax": True,
            "encoder": stack(settings),
            "decoder": stack(settings),
        },
    }  # fmt: skip
    path = settings.run_dir.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def speed(settings: Settings, rates: Rates, batches: list[tuple[int, int, int, int]]) -> Record:
    """Tokens and seconds of the timed steps from what Joey NMT logged, and the padding of their batches."""
    timed = batches[settings.warmup_steps :]
    steps = range(settings.warmup_steps + 1, settings.total_steps + 1)
    tokens = sum(batch[0] for batch in timed)
    seconds = sum(batch[0] / rates.by_step[step] for step, batch in zip(steps, timed, strict=True))
    return {
        "target_tokens": tokens,
        "seconds": seconds,
        "target_tokens_per_second": tokens / seconds,
        "padding_source": 1.0 - sum(batch[2] for batch in timed) / sum(batch[3] for batch in timed),
        "padding_target": 1.0 - tokens / sum(batch[1] for batch in timed),
    }


def measure(settings: Settings) -> Record:
    """What `joeynmt.training.train` does, and the validation loss by Joey NMT's own scoring of references."""
    torch.set_num_threads(settings.threads)
    config = load_config(write_config(settings))
    make_model_dir(Path(config["model_dir"]), overwrite=True)
    args = parse_global_args(config, rank=0, mode="train")
    model, train_data, valid_data, _ = prepare(args, rank=0, mode="train")
    valid_args = set_validation_args(args.test)
    places = {"model": model, "model_dir": args.model_dir, "device": args.device, "autocast": args.autocast}
    trainer = Counting(rank=0, seed=args.seed, train_args=args.train, dev_args=valid_args, **places)
    rates = Rates()
    logging.getLogger("joeynmt.training").addHandler(rates)
    trainer.train_and_validate(train_data=train_data, valid_data=valid_data)
    model.loss_function = ("crossentropy", 0.0)
    scores, *_ = predict(
        model=model,
        data=valid_data,
        device=args.device,
        n_gpu=0,
        compute_loss=True,
        normalization="tokens",
        args=valid_args._replace(return_prob="ref", return_attention=True),
        autocast=args.autocast,
    )
    return {
        **speed(settings, rates, trainer.batches),
        "validation_nll": scores["loss"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "pairs": len(train_data),
        "peak_memory_bytes": peak_memory_bytes(),
    }


if __name__ == "__main__":
    run_child(measure)
