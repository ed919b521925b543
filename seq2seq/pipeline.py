"""From a configuration to a finished run: corpus, tokenizer, training, the model to use, the test set.

This is where training and decoding meet: the trainer is handed a function that translates the validation set.
"""

from __future__ import annotations

import contextlib
import gc
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from seq2seq.config import Config, ModelConfig
from seq2seq.decoding.translator import Options, Translator
from seq2seq.decoding.twins import mismatch
from seq2seq.evaluation.metrics import corpus_bleu
from seq2seq.evaluation.tokenization import try_tokenize
from seq2seq.model import native
from seq2seq.model.transformer import Transformer
from seq2seq.model.twins import TOLERANCE, packed_difference
from seq2seq.run import Run, resume_command
from seq2seq.run_folder.files import UnwrittenError
from seq2seq.run_folder.resume_rules import check_changes, check_identity, check_settings, tell_changes
from seq2seq.run_folder.run_files import CORPUS, check_place
from seq2seq.run_folder.weights import build_model
from seq2seq.runtime import choose_device, choose_precision, derived_seed, emulated, precision_name, set_up_cpu
from seq2seq.stages import kept_corpus
from seq2seq.stages.advice import about_corpora, about_settings
from seq2seq.stages.finetuning import Hashes, InitialRun, all_sources, initial_run
from seq2seq.stages.finishing import Outcome, finish, finished_already, model_stands, translate_test_set
from seq2seq.stages.preflight import longest_sentences, preflight
from seq2seq.stages.preparing import Corpora, prepare
from seq2seq.text.corpus import source_hashes
from seq2seq.text.errors import UnwritableError
from seq2seq.text.reading import has_split
from seq2seq.text.sampling import SampledPairs
from seq2seq.training.horizon import check_end, early_end
from seq2seq.training.optimizer import learning_rate
from seq2seq.training.state import Interrupted, Observer, TrainingError
from seq2seq.training.trainer import Trainer


class UntestedError(KeyboardInterrupt):
    """Training was interrupted when all but its test was done."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


def train(
    config: Config,
    run_dir: Path,
    observer: Observer,
    *,
    resume: bool = False,
    overwrite: bool = False,
    stop: Callable[[], bool] = lambda: False,
    gently: AbstractContextManager[object] | None = None,
) -> Outcome:
    """Trains a model as configured into a run folder.

    stop: asked after every step whether to end early, with a checkpoint. gently: entered for as long as it is asked,
    and not while the data is prepared or the model finished. Raises ConfigError, DataError, TokenizerError, RunError or
    TrainingError, each with a message for the user, and Interrupted where `stop` asked for an end; then the run can be
    resumed.
    """
    check_end(config.training, has_split(config.data, "valid"))
    native.generation()  # an environment that asks for kernels that do not exist is told now
    _check_packed(config.model)
    device = choose_device(config.training.device)
    if resume and not Run.exists(run_dir):  # it was killed while its data was being prepared, or never began
        observer.message(f"{run_dir}: there is nothing to resume: starting at step 0")
        resume = False
    own = not run_dir.exists()
    run = _open_or_create(config, run_dir, resume=resume, overwrite=overwrite)
    try:
        with run.locked():
            # Once more: another training may have come and gone.
            _open_or_create(config, run_dir, resume=resume, overwrite=overwrite)
            if resume and (outcome := finished_already(config, run, observer)):
                return outcome
            anew = overwrite and not resume
            return _train(config, run, observer, device, resume=resume, overwrite=anew, stop=stop, gently=gently)
    finally:
        if own:
            with contextlib.suppress(OSError):  # the folder of a run that came to nothing, where nothing else is in it
                run.path.rmdir()


def _train(
    config: Config,
    run: Run,
    observer: Observer,
    device: torch.device,
    *,
    resume: bool,
    overwrite: bool,
    stop: Callable[[], bool],
    gently: AbstractContextManager[object] | None,
) -> Outcome:
    """All that `train` does with a run that is locked and has something left to do."""
    with contextlib.ExitStack() as opened:
        opened.enter_context(_prepared(run))
        threads = set_up_cpu(config.training.num_threads)
        _check_tokenization(config)
        for remark in about_settings(config):
            observer.message(remark)
        stands = resume and model_stands(config, run)
        if resume:
            tell_changes(run.config(), config, observer.message)
        initial = initial_run(config, run, resume=resume)
        corpora = prepare(config, run, observer, initial, resume=resume)
        check_identity(run.known_identity() if resume else {}, corpora.identity)
        sampled = opened.enter_context(_sampled(config, run, corpora))
        trainer = _trainer(config, run, corpora, observer, device, stop, sampled)
        _begin(config, trainer, initial, resume=resume)
        _describe(corpora, trainer, device, threads, observer)
        if found := mismatch(trainer.model):
            observer.message(found.text)
        if config.training.preflight:
            _look_ahead(config, trainer, corpora, observer, resumed=resume)
        # Not before: a corpus or tokenizer that cannot be used, or too little memory, leaves the run as it was.
        hashes = _source_hashes(config, run, corpora, initial, observer)
        for remark in about_corpora(config, corpora, hashes):
            observer.message(remark)
        _write_beginning(config, run, corpora, hashes, overwrite=overwrite)
        if corpora.made_of is not None:
            observer.working("hashing the prepared corpus")
            made, tokenizer = corpora.made_of, corpora.tokenizer.content_hash()
            kept_corpus.keep(run.path / CORPUS, config, made, tokenizer, corpora.counts)
        observer.working("training")
        with _telling_how_to_go_on(run):
            with gently or contextlib.nullcontext(), _without_searching_for_garbage():
                trainer.train(validate_first=initial is not None)
            if stop():  # during the last step: what is left to do would not end soon
                raise Interrupted
            if not (stands and run.trained_steps() == trainer.state.step):
                finish(config, run, trainer, corpora)
        try:
            return translate_test_set(config, run, corpora, trainer.state, device)
        except KeyboardInterrupt:
            raise UntestedError(Outcome(run, trainer.state, None, ())) from None


def _check_packed(config: ModelConfig) -> None:
    """Finds out that the code of the model was changed where it is read, and not where it is trained."""
    found = packed_difference(config)
    if found <= TOLERANCE:
        return
    remedy = "make the same change in both (docs/CHANGING.md)"
    with native.disabled():
        if packed_difference(config) <= TOLERANCE:
            remedy = "the compiled kernels lack the change: train with SEQ2SEQ_KERNELS=off, or change them, too"
    raise TrainingError(
        "training runs `packed` of seq2seq/model, and it does not compute what `forward` does: logits or gradients of "
        f"a small model differ by {found:.2%}; {remedy}"
    )


def _check_tokenization(config: Config) -> None:
    """Finds out now, not when it has been trained, that a package for BLEU's tokenisation is not there."""
    if any(has_split(config.data, split) for split in ("valid", "test")):
        try_tokenize(config.data.bleu_tokenize, f"data.bleu_tokenize = {config.data.bleu_tokenize!r}")


def _begin(config: Config, trainer: Trainer, initial: InitialRun | None, *, resume: bool) -> None:
    """Goes on from the newest checkpoint, or begins, with the weights of `initial` where there is one."""
    tell = trainer.observer.message
    if resumed := resume and trainer.resume():
        tell(f"resumed at step {trainer.state.step:,}")
    elif resume:
        tell("no complete checkpoint: starting at step 0")
    if initial is not None and not resumed:
        initial.load(trainer.model)
        tell(f"beginning with the weights and the vocabulary of {initial.path}")
        for remark in initial.remarks(config):
            tell(remark)


@contextlib.contextmanager
def _without_searching_for_garbage() -> Iterator[None]:
    """Within it, Python's cyclic collector leaves alone what there is already: it would cost 2% of the time."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def _prepared(run: Run) -> Iterator[None]:
    """The prepared corpus goes when training ends, and where it takes the space; a run that goes on later wants it."""
    folder = run.path / CORPUS
    try:
        yield
    except (UntestedError, UnwrittenError, UnwritableError):
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException:
        kept_corpus.tidy(folder)
        raise
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _telling_how_to_go_on(run: Run) -> Iterator[None]:
    """Adds to what is said of a full disk what is left: the last checkpoint, and how to continue from it."""
    try:
        yield
    except (UnwrittenError, UnwritableError) as error:
        latest = run.latest_checkpoint()
        where = f"from step {latest.step:,}" if latest else "from step 0"
        raise UnwrittenError(f"{error}; then continue {where} with `{resume_command(run.path)}`") from None


def _open_or_create(config: Config, run_dir: Path, *, resume: bool, overwrite: bool) -> Run:
    """The run to write, nothing of it changed yet. Raises RunError where it cannot be as asked."""
    if not resume:
        if not (overwrite and Run.exists(run_dir)):
            return Run.create(run_dir)
        check_place(run_dir, overwrite=True)
        return Run(run_dir)
    run = Run.open(run_dir)
    check_changes(run.config(), config)
    check_settings(run.known_identity(), config)
    return run


def _trainer(
    config: Config,
    run: Run,
    corpora: Corpora,
    observer: Observer,
    device: torch.device,
    stop: Callable[[], bool],
    sampled: SampledPairs | None,
) -> Trainer:
    """A trainer of a fresh model."""
    torch.manual_seed(derived_seed(config.training.seed, "weights"))
    model = build_model(config, corpora.tokenizer)
    model.compute_dtype = choose_precision(config.training.precision, device)
    return Trainer(
        run,
        config.training,
        model,
        corpora.train,
        corpora.valid,
        _validator(config, corpora),
        observer,
        device=device,
        sampled=sampled,
        stop=stop,
        identity=corpora.identity,
    )


def _sampled(config: Config, run: Run, corpora: Corpora) -> AbstractContextManager[SampledPairs | None]:
    """The training pairs with pieces that are sampled for each epoch, where that is configured."""
    if not config.tokenizer.samples:
        return contextlib.nullcontext()
    seed = config.training.seed
    return SampledPairs(corpora.train, corpora.tokenizer, config.tokenizer, config.data, run.path / CORPUS, seed=seed)


def _source_hashes(
    config: Config, run: Run, corpora: Corpora, initial: InitialRun | None, observer: Observer
) -> Hashes | None:
    """Of all sources that the model has seen when it is trained, those of an earlier training included."""
    observer.working("hashing the sources")
    hashes = source_hashes(corpora.train_text)
    if not config.training.init_from:
        return hashes
    before = run if initial is None else initial.run  # resumed, it has taken them over
    found = all_sources(hashes, before)
    if found is None:
        observer.message(f"{before.path}: does not tell what its model was trained on: nor will this run")
    return found


def _write_beginning(config: Config, run: Run, corpora: Corpora, hashes: Hashes | None, *, overwrite: bool) -> None:
    """Writes what a run has from its first step on. overwrite: removes the run that the folder holds."""
    if overwrite:
        Run.create(run.path, overwrite=True)
    run.clean()  # a start before this one may have been killed
    run.write_identity(corpora.identity)  # first: it tells whose the other files are, should this end here
    run.write_tokenizer(corpora.tokenizer)
    run.write_source_hashes(hashes)
    run.write_config(config)  # last: from now on it is a run, which can be resumed


def _describe(corpora: Corpora, trainer: Trainer, device: torch.device, threads: int, observer: Observer) -> None:
    """Tells what is about to be trained on what."""
    tokenizer, model = corpora.tokenizer, trainer.model
    observer.message(f"training data: {corpora.counts.describe()}")
    sizes = f"{tokenizer.source_vocab_size:,}"
    if not tokenizer.shared:
        sizes += f" source and {tokenizer.target_vocab_size:,} target"
    precision = precision_name(model.compute_dtype)
    generation = native.generation()
    kernels = f"compiled kernels ({generation})" if generation else "without the compiled kernels"
    if native.are_out_of_date():
        kernels += "; there are some that were built from other sources than these (install the package again)"
    where = "GPU" if device.type == "cuda" else f"CPU, {threads} thread{'s' if threads > 1 else ''}, {kernels}"
    observer.message(f"model: {model.num_parameters():,} parameters, {sizes} pieces; {where}, {precision}")
    if warning := emulated(model.compute_dtype, device):
        observer.message(warning)
    peak = learning_rate(trainer.config, model.config.d_model, trainer.config.warmup_steps, None)
    observer.message(f"updates: {trainer.updates_per_epoch:,} an epoch; learning rate up to {peak:.2e}")


def _look_ahead(config: Config, trainer: Trainer, corpora: Corpora, observer: Observer, *, resumed: bool) -> None:
    """Rehearses the largest batches and tells what the training will take, unless there is nothing left to train."""
    trainer.set_horizon()
    if trainer.done():
        if resumed:
            past = f"step {trainer.state.step:,} is at or past the end that is asked for"
            observer.message(f"{early_end(config.training, trainer.state) or past}: nothing is trained")
        return
    observer.working("trying the largest batches")
    decode = _validator(config, corpora, longest=True)
    mapped = corpora.train.path.stat().st_size
    prepared = kept_corpus.size(corpora.train.path.parent)
    forecast = preflight(
        config, trainer, decode, tell=observer.message, mapped=mapped, prepared=prepared, resumed=resumed
    )
    observer.message(forecast.describe())


def _validator(config: Config, corpora: Corpora, *, longest: bool = False) -> Callable[[Transformer], float] | None:
    """A function that scores a model by BLEU on (the first part of) the validation set; or on its longest sentences.

    In float32, whatever the precision of the training, so that `translate` and `benchmark` come to the same score.
    """
    if corpora.valid_text is None:
        return None
    limit = config.training.max_validation_sentences
    sources, references = corpora.valid_text.first(limit)
    if longest:
        chosen = longest_sentences(sources, config, torch.get_num_threads())
        sources, references = [sources[i] for i in chosen], [references[i] for i in chosen]
    options = Options(beam_size=config.training.validation_beam_size)

    def evaluate(model: Transformer) -> float:
        precision, model.compute_dtype = model.compute_dtype, torch.float32
        try:
            translator = Translator.of(model.eval(), corpora.tokenizer, config.decoding)
            hypotheses = [result.text for result in translator.stream(sources, options)]
        finally:
            model.compute_dtype = precision
        return corpus_bleu(hypotheses, references, config.data.bleu_tokenize)

    return evaluate
