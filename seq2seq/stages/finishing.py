"""The end of a training: the model to use, its description, the test set. And runs that came to it before."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from seq2seq.config import Config
from seq2seq.decoding.translator import Translator
from seq2seq.evaluation.metrics import corpus_bleu
from seq2seq.machine import peak_memory_bytes
from seq2seq.run import Run, resume_command
from seq2seq.run_folder.checkpoints import MODEL, Checkpoint
from seq2seq.run_folder.files import RunError, write_atomic
from seq2seq.run_folder.model_card import is_card, is_of_another_model, model_card
from seq2seq.run_folder.resume_rules import check_identity
from seq2seq.run_folder.run_files import CARD, CONFIG, CORPUS, CURVES
from seq2seq.run_folder.weights import load_weights
from seq2seq.runtime import describe_hardware, precision_name
from seq2seq.stages.finetuning import origin
from seq2seq.stages.preparing import Corpora, prepare, sound_tokenizer
from seq2seq.text.corpus import TextCorpus
from seq2seq.training.averaging import average_checkpoints, choose_checkpoints
from seq2seq.training.horizon import out_of_patience
from seq2seq.training.state import Observer, TrainingError, TrainingState
from seq2seq.training.trainer import Trainer
from seq2seq.untrusted import MAX_CONFIG_BYTES, read_regular
from seq2seq.version import __version__

TELLING = 1.0  # BLEU: less says nothing


@dataclass(frozen=True)
class Example:
    """One test sentence, its translation and its reference."""

    source: str
    translation: str
    reference: str


@dataclass(frozen=True)
class Outcome:
    """What training gave. test_bleu is None where the configuration names no test set.

    sentence: one to try the model on, where one is at hand.
    """

    run: Run
    state: TrainingState
    test_bleu: float | None
    examples: tuple[Example, ...]
    sentence: str | None = None


def model_stands(config: Config, run: Run) -> bool:
    """Whether there is a sound model, made as one would be now: it is not made anew of what checkpoints are left."""
    names = ("average", "average_checkpoints", "keep_last", "keep_best")
    before, now = run.config().training, config.training
    return run.sound() and all(getattr(before, name) == getattr(now, name) for name in names)


def finished_already(config: Config, run: Run, observer: Observer) -> Outcome | None:
    """What there is of a run that is to be resumed and has nothing left to do; None where it has.

    Its tokenizer is written anew where it is damaged. Raises RunError where nothing but a damaged model is left, and
    RunError or DataError where the corpus does not give the tokenizer.
    """
    if (run.path / MODEL).exists() and run.latest_checkpoint() is None:
        if not run.sound() or sound_tokenizer(run) is not None:
            anew = ["seq2seq", "train", str(run.path / CONFIG), "--run-dir", str(run.path), "--overwrite"]
            finished = "the model is finished and sound, and " if run.sound() else ""
            raise RunError(
                f"{run.path}: {finished}there is no checkpoint to go on from; to train it anew: {shlex.join(anew)}"
            )
        _mend_tokenizer(config, run, observer)
        shutil.rmtree(run.path / CORPUS, ignore_errors=True)
        return Outcome(run, TrainingState(finished=True), None, ())
    state = _finished(config, run)
    if state is None:
        return None
    if sound_tokenizer(run) is None:
        _mend_tokenizer(config, run, observer)
    later, impatient = resume_command(run.path), out_of_patience(config.training, state)
    if not impatient or state.horizon is None or state.step >= state.horizon:  # else there is a later end already
        later += f" --set training.max_steps={2 * state.step}"
    if impatient:
        later += " --set training.patience=0"
    observer.message(f"{run.path}: finished already, at step {state.step:,}; to go on, give it a later end: {later}")
    _complete_description(config, run)
    run.clean()  # a kill may have come after all was done
    shutil.rmtree(run.path / CORPUS, ignore_errors=True)
    return Outcome(run, state, None, ())


def _complete_description(config: Config, run: Run) -> None:
    """Writes the model card and the curves where a kill came between the model and them.

    A card that is not the program's, or not to be read, stays; one of an earlier model is replaced, as at every end.
    """
    card, curves = run.path / CARD, run.path / CURVES
    try:
        text: str | None = read_regular(card, MAX_CONFIG_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        text = None
    except OSError:
        text = ""
    with contextlib.suppress(KeyError, TypeError, ValueError):  # model.json may be an earlier version's
        info = run.info()
        if text is None or is_of_another_model(text, info):
            write_atomic(card, model_card(config, info).encode())
    if not curves.exists() or curves.stat().st_mtime < (run.path / MODEL).stat().st_mtime:
        _draw_curves(run, lambda text: None)  # that it cannot be drawn was said when it was trained


def _mend_tokenizer(config: Config, run: Run, observer: Observer) -> None:
    """Writes the damaged tokenizer of a finished run anew. Raises RunError where the corpus no longer gives it."""
    try:
        corpora = prepare(config, run, observer, None, resume=True)
        check_identity(run.known_identity(), corpora.identity)
        run.write_tokenizer(corpora.tokenizer)
    finally:
        shutil.rmtree(run.path / CORPUS, ignore_errors=True)


def _finished(config: Config, run: Run) -> TrainingState | None:
    """Where a run with this very configuration has come to its end and has a sound model: nothing is left to do."""
    latest = run.latest_checkpoint()
    if latest is None or run.config() != config or not run.sound():
        return None
    try:
        state = TrainingState.from_dict(latest.state())
    except (RunError, TrainingError):
        return None
    return state if state.finished and run.trained_steps() == state.step else None


def finish(config: Config, run: Run, trainer: Trainer, corpora: Corpora) -> None:
    """Writes the model to use, its description, the model card and the curves."""
    sound = run.sound_checkpoints(trainer.observer.message)
    chosen = choose_checkpoints(config.training, sound, trainer.state)
    tensors = average_checkpoints(chosen)
    load_weights(trainer.model, tensors, str(chosen[-1].path))
    bleu = _known_bleu(chosen, trainer.state)
    if bleu is None and trainer.evaluate is not None:
        trainer.observer.working("validating the final model")
        bleu = trainer.evaluate(trainer.model)
    info = _info(config, trainer, corpora, [checkpoint.step for checkpoint in chosen], bleu)
    run.write_model(tensors, info)
    trainer.observer.message(_describe_model(info))
    wanted = min(config.training.average_checkpoints, trainer.state.step // config.training.save_every)
    if config.training.average == "last" and len(chosen) < wanted:
        trainer.observer.message("these are fewer than training.average_checkpoints: there are no more")
    if remark := _worse_than_at_first(bleu, trainer.state):
        trainer.observer.message(remark)
    card = run.path / CARD
    if card.exists() and not is_card(card):
        trainer.observer.message(f"{card}: is not of this program and stays; there is no model card")
    else:
        write_atomic(card, model_card(config, info).encode())
    _draw_curves(run, trainer.observer.message)


def _known_bleu(chosen: Sequence[Checkpoint], state: TrainingState) -> float | None:
    """What the model scores on the validation set, where it is a single checkpoint that was validated as it is."""
    if len(chosen) > 1:
        return None
    return next((one["valid_bleu"] for one in state.validations if one["step"] == chosen[0].step), None)


def _describe_model(info: dict[str, Any]) -> str:
    """What the model was made of, and how good it is: an average is as a rule better than the last validation said."""
    steps, bleu = info["training"]["averaged_steps"], info["validation"]["bleu"]
    what = f"the checkpoint of step {steps[0]:,}"
    if len(steps) > 1:
        what = f"the average of {len(steps)} checkpoints, steps {min(steps):,} to {max(steps):,}"
    return f"finished: the model is {what}" + ("" if bleu is None else f"; validation BLEU {bleu:.2f}")


def _worse_than_at_first(bleu: float | None, state: TrainingState) -> str | None:
    """What is to be said of a fine-tuning that has spoilt the model, by the validation set."""
    first = next((one["valid_bleu"] for one in state.validations if one["step"] == 0), None)
    if bleu is None or first is None or first < TELLING or round(bleu, 3) >= first:
        return None
    return (
        f"that is less than the {first:.2f} of the model that training began with: where the validation set is of the "
        "text that is to be translated, keep that one, or try a lower training.learning_rate_scale, or more steps"
    )


def _draw_curves(run: Run, tell: Callable[[str], None]) -> None:
    try:
        from seq2seq.stages.curves import draw_curves
    except ModuleNotFoundError:
        tell(f"{CURVES} is not drawn: install matplotlib with `pip install 'seq2seq[plot]'`")
    except ImportError as error:
        tell(f"{CURVES} is not drawn: matplotlib cannot be used here ({' '.join(str(error).split())})")
    else:
        draw_curves(run)


def _info(config: Config, trainer: Trainer, corpora: Corpora, steps: list[int], bleu: float | None) -> dict[str, Any]:
    state, tokenizer, best = trainer.state, corpora.tokenizer, trainer.state.best
    return {
        "seq2seq_version": __version__,
        "source_language": config.data.source_language,
        "target_language": config.data.target_language,
        "source_vocab_size": tokenizer.source_vocab_size,
        "target_vocab_size": tokenizer.target_vocab_size,
        "shared_vocabulary": tokenizer.shared,
        "model": config.model.model_dump(mode="json"),
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
            "init_from": origin(config, corpora.identity),
            "averaged_steps": steps,
            "precision": precision_name(trainer.model.compute_dtype),
            "hardware": describe_hardware(trainer.device),
            "torch": torch.__version__,
            "peak_memory_bytes": peak_memory_bytes(),
        },
        "validation": {
            "bleu": None if bleu is None else round(bleu, 3),
            "bleu_tokenize": config.data.bleu_tokenize,
            "beam_size": config.training.validation_beam_size,
            "best_single_bleu": best and best["valid_bleu"],
            "best_single_step": best and best["step"],
        },
    }


def translate_test_set(
    config: Config, run: Run, corpora: Corpora, state: TrainingState, device: torch.device
) -> Outcome:
    """Translates the configured test set with the finished run, as `translate` would, where it was trained."""
    if corpora.test_text is None:
        return Outcome(run, state, None, (), _sentence(corpora.valid_text or corpora.train_text))
    translator = Translator.of(run.load_model().to(device), corpora.tokenizer, config.decoding)
    pairs = list(corpora.test_text)
    hypotheses = [result.text for result in translator.stream(source for source, _ in pairs)]
    bleu = corpus_bleu(hypotheses, [reference for _, reference in pairs], config.data.bleu_tokenize)
    step = max(1, len(pairs) // 3)
    shown = range(0, min(len(pairs), 3 * step), step)
    examples = tuple(Example(pairs[i][0], hypotheses[i], pairs[i][1]) for i in shown)
    return Outcome(run, state, bleu, examples[:3], _sentence(corpora.test_text))


def _sentence(text: TextCorpus) -> str | None:
    """The first one that is neither empty nor long, nor looks like an option."""
    sources = islice(text.sources(), 100)
    return next((one for one in sources if one.strip() and len(one) <= 100 and not one.startswith("-")), None)
