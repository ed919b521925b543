"""From a configuration to a finished run: corpus, tokenizer, training, the model to use, the test set.

This is where training and decoding meet: the trainer is handed a function that translates the validation set.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seq2seq import __version__
from seq2seq.config import Config, ConfigError
from seq2seq.decoding.translator import Options, Translator
from seq2seq.evaluation.metrics import corpus_bleu
from seq2seq.model.transformer import Transformer
from seq2seq.model_card import model_card
from seq2seq.run import CARD, CORPUS, Checkpoint, Run, RunError, build_model, write_atomic
from seq2seq.runtime import (
    choose_device,
    choose_precision,
    derived_seed,
    describe_hardware,
    peak_memory_bytes,
    set_up_cpu,
)
from seq2seq.text.batching import padding_share, plan_epoch
from seq2seq.text.corpus import (
    FilterCounts,
    PieceCorpus,
    TextCorpus,
    build_piece_corpus,
    build_text_corpus,
    content_hash,
    source_hashes,
)
from seq2seq.text.download import ensure_downloads
from seq2seq.text.errors import DataError
from seq2seq.text.reading import has_split, read_pairs
from seq2seq.text.tokenizer import Tokenizer
from seq2seq.training.averaging import average_checkpoints
from seq2seq.training.trainer import Observer, Trainer, TrainingState

# Where a run goes on after a change of configuration, only these may differ: how long, and how often.
MAY_CHANGE = {
    "max_steps", "max_epochs", "max_minutes", "validate_every", "save_every", "log_every", "patience", "keep_last",
    "keep_best", "average", "average_checkpoints", "num_threads", "device", "max_skipped_steps",
}  # fmt: skip


@dataclass(frozen=True)
class Example:
    """One test sentence, its translation and its reference."""

    source: str
    translation: str
    reference: str


@dataclass(frozen=True)
class Outcome:
    """What training gave. test_bleu is None where the configuration names no test set."""

    run: Run
    state: TrainingState
    test_bleu: float | None
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Corpora:
    """The prepared data of one run."""

    train: PieceCorpus
    train_text: TextCorpus
    valid: PieceCorpus | None
    valid_text: TextCorpus | None
    test_text: TextCorpus | None
    counts: FilterCounts
    tokenizer: Tokenizer
    identity: dict[str, str]


def train(
    config: Config,
    run_dir: Path,
    observer: Observer,
    *,
    resume: bool = False,
    overwrite: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Trains a model as configured into a run folder.

    Raises ConfigError, DataError, TokenizerError, RunError or TrainingError, each with a message for the user, and
    Interrupted where `stop` asked for an end; then the run can be resumed.
    """
    _check_end(config)
    device = choose_device(config.training.device)
    run = _open_or_create(config, run_dir, resume=resume, overwrite=overwrite)
    threads = set_up_cpu(config.training.num_threads)
    try:
        corpora = _prepare(config, run, observer, resume=resume)
    except BaseException:
        shutil.rmtree(run.path / CORPUS, ignore_errors=True)
        with contextlib.suppress(OSError):  # the folder of a run that came to nothing, where nothing else is in it
            run.path.rmdir()
        raise
    torch.manual_seed(derived_seed(config.training.seed, "weights"))
    model = build_model(config, corpora.tokenizer)
    model.compute_dtype = choose_precision(config.training.precision, device)
    trainer = Trainer(
        run,
        config.training,
        model,
        corpora.train,
        corpora.valid,
        _validator(config, corpora),
        observer,
        device=device,
        stop=stop,
        identity=corpora.identity,
    )
    if resume and trainer.resume():
        observer.message(f"resumed at step {trainer.state.step:,}")
    # Not before: a corpus or tokenizer that cannot be used leaves the run as it was.
    if overwrite and not resume:
        Run.create(run_dir, overwrite=True)
    run.write_tokenizer(corpora.tokenizer)
    run.write_config(config)
    run.write_source_hashes(source_hashes(corpora.train_text))
    _describe(config, corpora, model, device, threads, observer)
    state = trainer.train()
    _finish(config, run, trainer, corpora)
    outcome = _test(config, run, corpora, state)
    shutil.rmtree(run.path / CORPUS, ignore_errors=True)
    return outcome


def _check_end(config: Config) -> None:
    """Raises ConfigError where nothing says when training ends."""
    training = config.training
    limits = (training.max_steps, training.max_epochs, training.max_minutes)
    patience = (
        training.patience and training.schedule in ("inverse_sqrt", "constant") and has_split(config.data, "valid")
    )
    if not patience and all(limit is None for limit in limits):
        raise ConfigError(
            "nothing says when training ends: set training.max_steps, training.max_epochs or training.max_minutes, or "
            "start from a preset, such as --preset tiny"
        )


def _open_or_create(config: Config, run_dir: Path, *, resume: bool, overwrite: bool) -> Run:
    if not resume:
        return Run(run_dir) if overwrite and Run.exists(run_dir) else Run.create(run_dir)
    run = Run.open(run_dir)
    old = run.config()
    for section in ("data", "tokenizer", "model", "training"):
        before, after = getattr(old, section).model_dump(), getattr(config, section).model_dump()
        for name, value in after.items():
            if before[name] != value and not (section == "training" and name in MAY_CHANGE):
                raise RunError(
                    f"--resume: {section}.{name} = {value!r}, but this run began with {before[name]!r}: "
                    "put it back, or start anew with --overwrite"
                )
    return run


# Data


def _prepare(config: Config, run: Run, observer: Observer, *, resume: bool) -> Corpora:
    """Reads, filters, tokenizes; with the run's own tokenizer where it has one to go on with."""
    data, folder = config.data, run.path / CORPUS
    ensure_downloads(data.downloads, observer.message)
    text, counts = build_text_corpus(
        read_pairs(data, "train"), folder / "train.text", drop_empty=True, drop_duplicates=data.drop_duplicates
    )
    if not len(text):
        raise DataError(f"the training corpus has no sentence pairs ({counts.describe()})")
    if resume and _has_tokenizer(run):
        tokenizer = run.tokenizer()
    else:
        seed = derived_seed(config.training.seed, "tokenizer") % 2**31
        tokenizer = Tokenizer.learn(config.tokenizer, text.sources(), text.targets(), seed=seed)
    encode = tokenizer.encode_source, tokenizer.encode_target
    train = build_piece_corpus(text, *encode, data, folder / "train.pieces", counts, filters=True)
    if not len(train):
        raise DataError(f"no training pair is left after filtering ({counts.describe()}): see [data] for the limits")
    valid_text = _held_out(config, run, "valid")
    valid = None
    if valid_text is not None:
        valid = build_piece_corpus(valid_text, *encode, data, folder / "valid.pieces", None, filters=False)
        _check_positions(config, valid)
    identity = {"corpus": content_hash(train.path), "tokenizer": tokenizer.content_hash()}
    return Corpora(train, text, valid, valid_text, _held_out(config, run, "test"), counts, tokenizer, identity)


def _check_positions(config: Config, valid: PieceCorpus) -> None:
    """Finds out now, not at the first validation, that a sentence is longer than learned positions reach."""
    longest = np.maximum(valid.source_lengths, valid.target_lengths)
    index = int(longest.argmax())
    if config.model.positions == "learned" and longest[index] + 1 > config.model.max_positions:
        raise DataError(
            f"pair {index + 1} of the validation set has {longest[index]:,} pieces, too many for model.max_positions = "
            f"{config.model.max_positions}: leave it out, or raise model.max_positions"
        )


def _has_tokenizer(run: Run) -> bool:
    return any((run.path / name).exists() for name in ("tokenizer.model", "source.model"))


def _held_out(config: Config, run: Run, split: Any) -> TextCorpus | None:
    if not has_split(config.data, split):
        return None
    pairs = read_pairs(config.data, split)
    text, _ = build_text_corpus(pairs, run.path / CORPUS / f"{split}.text", drop_empty=False, drop_duplicates=False)
    if not len(text):
        raise DataError(f"the {split} corpus has no sentence pairs")
    return text


def _describe(
    config: Config, corpora: Corpora, model: Transformer, device: torch.device, threads: int, observer: Observer
) -> None:
    """Tells what is about to be trained on what."""
    train, tokenizer, training = corpora.train, corpora.tokenizer, config.training
    observer.message(f"training data: {corpora.counts.describe()}")
    sizes = f"{tokenizer.source_vocab_size:,}"
    if not tokenizer.shared:
        sizes += f" source and {tokenizer.target_vocab_size:,} target"
    precision = "bf16" if model.compute_dtype == torch.bfloat16 else "fp32"
    where = "GPU" if device.type == "cuda" else f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    observer.message(f"model: {model.num_parameters():,} parameters, {sizes} pieces; {where}, {precision}")
    tokens = max(1, training.batch_tokens // training.accumulate)
    plan = plan_epoch(train.source_lengths, train.target_lengths, tokens, seed=training.seed, epoch=0)
    padding = [padding_share(plan, lengths) for lengths in (train.source_lengths, train.target_lengths)]
    observer.message(
        f"batches: {len(plan):,} an epoch; padding {padding[0]:.1%} of the source, {padding[1]:.1%} of the target"
    )


def _validator(config: Config, corpora: Corpora) -> Callable[[Transformer], float] | None:
    """A function that scores a model by BLEU on (the first part of) the validation set."""
    if corpora.valid_text is None:
        return None
    limit = config.training.max_validation_sentences
    sources, references = next(corpora.valid_text.slices(limit))
    options = Options(beam_size=config.training.validation_beam_size)

    def evaluate(model: Transformer) -> float:
        translator = Translator.of(model.eval(), corpora.tokenizer, config.decoding)
        hypotheses = [result.text for result in translator.stream(sources, options)]
        return corpus_bleu(hypotheses, references, config.data.bleu_tokenize)

    return evaluate


# The model to use


def _finish(config: Config, run: Run, trainer: Trainer, corpora: Corpora) -> None:
    """Writes the model to use, its description, the model card and the curves."""
    chosen = choose_checkpoints(config, run, trainer.state)
    tensors = average_checkpoints(chosen)
    trainer.model.load_state_dict(tensors)
    evaluate = _validator(config, corpora)
    bleu = evaluate(trainer.model) if evaluate is not None else None
    info = _info(config, trainer, corpora, [checkpoint.step for checkpoint in chosen], bleu)
    run.write_model(tensors, info)
    write_atomic(run.path / CARD, model_card(config, info).encode())
    try:
        from seq2seq.curves import draw_curves
    except ModuleNotFoundError:
        trainer.observer.message("curves.png is not drawn: install matplotlib with `pip install 'seq2seq[plot]'`")
    else:
        draw_curves(run)


def choose_checkpoints(config: Config, run: Run, state: TrainingState) -> list[Checkpoint]:
    """The checkpoints that make the final model: the last N, the best N, or the one best."""
    training = config.training
    kept = {checkpoint.step: checkpoint for checkpoint in run.checkpoints()}
    ranked = sorted(
        (record for record in state.validations if record["step"] in kept),
        key=lambda record: -record["valid_loss"] if record["valid_bleu"] is None else record["valid_bleu"],
        reverse=True,
    )
    best = [kept[record["step"]] for record in ranked]
    if training.average == "none":
        return best[:1] or [kept[max(kept)]]
    if training.average == "best" and best:
        return best[: training.average_checkpoints]
    regular = [step for step in sorted(kept) if step % training.save_every == 0 or step == state.step]
    return [kept[step] for step in regular[-training.average_checkpoints :]]


def _info(config: Config, trainer: Trainer, corpora: Corpora, steps: list[int], bleu: float | None) -> dict[str, Any]:
    state, tokenizer = trainer.state, corpora.tokenizer
    return {
        "seq2seq_version": __version__,
        "source_language": config.data.source_language,
        "target_language": config.data.target_language,
        "source_vocab_size": tokenizer.source_vocab_size,
        "target_vocab_size": tokenizer.target_vocab_size,
        "shared_vocabulary": tokenizer.shared,
        "num_parameters": trainer.model.num_parameters(),
        "identity": corpora.identity,
        "corpus": corpora.counts.as_dict(),
        "training": {
            "steps": state.step,
            "epochs": round(trainer.epochs(), 2),
            "seconds": round(state.seconds, 1),
            "target_tokens": state.target_tokens,
            "skipped_steps": state.skipped_steps,
            "seed": config.training.seed,
            "averaged_steps": steps,
            "precision": "bf16" if trainer.model.compute_dtype == torch.bfloat16 else "fp32",
            "hardware": describe_hardware(trainer.device),
            "torch": torch.__version__,
            "peak_memory_bytes": peak_memory_bytes(),
        },
        "validation": {
            "bleu": None if bleu is None else round(bleu, 3),
            "bleu_tokenize": config.data.bleu_tokenize,
            "beam_size": config.training.validation_beam_size,
            "best_single_bleu": None if state.best_bleu is None else round(state.best_bleu, 3),
            "best_single_step": state.best_step,
        },
    }


def _test(config: Config, run: Run, corpora: Corpora, state: TrainingState) -> Outcome:
    """Translates the configured test set with the finished run, as `translate` would."""
    if corpora.test_text is None:
        return Outcome(run, state, None, ())
    translator = Translator(run, num_threads=config.training.num_threads)
    pairs = list(corpora.test_text)
    hypotheses = [result.text for result in translator.stream(source for source, _ in pairs)]
    bleu = corpus_bleu(hypotheses, [reference for _, reference in pairs], config.data.bleu_tokenize)
    step = max(1, len(pairs) // 3)
    shown = range(0, min(len(pairs), 3 * step), step)
    examples = tuple(Example(pairs[i][0], hypotheses[i], pairs[i][1]) for i in shown)
    return Outcome(run, state, bleu, examples[:3])
