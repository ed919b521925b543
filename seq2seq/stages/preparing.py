"""From the files of a configuration to encoded corpora: reading, filtering, learning the tokenizer, encoding."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from seq2seq.atomic import readable_size
from seq2seq.config import DATA_PATHS, Config, DataConfig
from seq2seq.run import Run
from seq2seq.run_folder.files import RunError, free_space
from seq2seq.run_folder.resume_rules import SETTINGS, check_files, settings_of
from seq2seq.run_folder.run_files import CORPUS
from seq2seq.runtime import derived_seed
from seq2seq.stages import kept_corpus
from seq2seq.stages.finetuning import INITIAL, InitialRun
from seq2seq.text.corpus import (
    FilterCounts,
    PieceCorpus,
    TextCorpus,
    build_piece_corpus,
    build_text_corpus,
    content_hash,
)
from seq2seq.text.download import downloads_in_use, ensure_downloads
from seq2seq.text.errors import DataError
from seq2seq.text.reading import Split, corpus_name, has_split, is_tsv, read_pairs
from seq2seq.text.tokenizer import Tokenizer, TokenizerError
from seq2seq.training.state import Observer
from seq2seq.training.validation import LONGEST_VALIDATED

MIN_QUOTED = 0.02  # of the pairs of a table: fewer are likely to be quotations
SPACE, UNPACKED = 2, 3  # bytes of a prepared corpus by those of its text, and of text by those of a gzip file
OFTEN = 5_000  # pairs after which it is told how many were read
MANY = 200_000  # pairs: learning a vocabulary of more takes a while, in which nothing can be told

SPLITS: tuple[Split, ...] = ("train", "valid", "test")
One = TypeVar("One")


@dataclass(frozen=True)
class Corpora:
    """The prepared data of one run. identity: hashes of what a resumed run must find again.

    made_of: what `kept_corpus.keep` is to write down, where something is.
    """

    train: PieceCorpus
    train_text: TextCorpus
    valid: PieceCorpus | None
    valid_text: TextCorpus | None
    test_text: TextCorpus | None
    counts: FilterCounts
    tokenizer: Tokenizer
    identity: dict[str, str]
    made_of: kept_corpus.MadeOf | None = None


def prepare(config: Config, run: Run, observer: Observer, initial: InitialRun | None, *, resume: bool) -> Corpora:
    """Reads, filters, tokenizes; with the run's own tokenizer where it has one to go on with, or that of `initial`.

    What a run that was stopped has prepared is used again where nothing has changed since.
    """
    data, folder = config.data, run.path / CORPUS
    known = _kept_tokenizer(config, run, observer) if resume and initial is None else None
    ensure_downloads(downloads_in_use(data) if resume else data.downloads, observer.message)
    if resume:
        check_files(data)
    made_of, before = kept_corpus.made_of(data), None
    given = initial.tokenizer() if initial is not None else known
    if resume and given is not None and (folder / kept_corpus.RECORD).exists():
        observer.working("checking the prepared corpus")
        before = kept_corpus.kept(folder, config, made_of, given.content_hash())
    if given is not None and before is not None:
        texts = {split: TextCorpus(folder / f"{split}.text") for split in SPLITS if has_split(data, split)}
        counts, tokenizer = before, given
        train = PieceCorpus(folder / "train.pieces")
        valid = PieceCorpus(folder / "valid.pieces") if "valid" in texts else None
        made_of = None  # what is written down stays
    else:
        shutil.rmtree(folder, ignore_errors=True)
        texts, counts = _read(config, folder, observer)
        tokenizer = known or _tokenizer(config, run, observer, initial, texts["train"], resume=resume)
        train, valid = _encode(data, folder, texts, tokenizer, counts, observer)
    if valid is not None:
        _check_validation(config, valid)
    identity = {
        "corpus": content_hash(train.path),
        "tokenizer": tokenizer.content_hash(),
        SETTINGS: settings_of(config),
    }
    if initial is not None:
        identity[INITIAL] = initial.weights_hash
    elif resume and config.training.init_from:
        identity_known = run.known_identity()
        if identity_known and INITIAL not in identity_known:
            raise RunError(
                f"{run.path}: its files no longer say which weights it began with: train it anew with --overwrite"
            )
        if identity_known:  # else the checkpoint is damaged, and will be said to be
            identity[INITIAL] = identity_known[INITIAL]
    if valid is not None:
        identity["validation"] = content_hash(valid.path)
    held_out = texts.get("valid"), texts.get("test")
    return Corpora(train, texts["train"], valid, *held_out, counts, tokenizer, identity, made_of)


def _read(config: Config, folder: Path, observer: Observer) -> tuple[dict[Split, TextCorpus], FilterCounts]:
    """The text of each split that is configured, and what of the training pairs was dropped."""
    data = config.data
    if remark := _remark_on_space(data, folder):
        observer.message(remark)
    pairs = _counted(read_pairs(data, "train"), observer)
    text, counts = build_text_corpus(
        pairs, folder / "train.text", drop_empty=True, drop_duplicates=data.drop_duplicates
    )
    if not len(text):
        raise DataError(f"{corpus_name(data, 'train')}: no sentence pairs to train on ({counts.describe()})")
    if is_tsv(data.train_pairs) and not data.tsv_quotes and (remark := _remark_on_quotes(text)):
        observer.message(f"{data.train_pairs}: {remark}")
    texts: dict[Split, TextCorpus] = {"train": text}
    for split in SPLITS[1:]:  # before anything takes long
        if has_split(data, split):
            texts[split] = _held_out(data, folder, split, observer)
    return texts, counts


def _tokenizer(
    config: Config, run: Run, observer: Observer, initial: InitialRun | None, text: TextCorpus, *, resume: bool
) -> Tokenizer:
    """That of the run whose model training begins with, or one that is learned from the training pairs."""
    if initial is not None:
        return initial.tokenizer()
    what = f"learning {config.tokenizer.vocab_size:,} pieces"
    observer.working(what)
    if len(text) > MANY:
        observer.message(f"{what} from {len(text):,} pairs: this takes a while")
    seed = derived_seed(config.training.seed, "tokenizer") % 2**31
    tokenizer = Tokenizer.learn(config.tokenizer, text.sources(), text.targets(), seed=seed, pairs=len(text))
    if resume:
        _check_made_anew(run, tokenizer)
    return tokenizer


def _encode(
    data: DataConfig,
    folder: Path,
    texts: dict[Split, TextCorpus],
    tokenizer: Tokenizer,
    counts: FilterCounts,
    observer: Observer,
) -> tuple[PieceCorpus, PieceCorpus | None]:
    """The pieces of the training pairs that are not filtered out, which `counts` tells, and of the validation set."""
    encode, text = (tokenizer.encode_source, tokenizer.encode_target), texts["train"]
    train = build_piece_corpus(
        text, *encode, data, folder / "train.pieces", counts, filters=True,
        progress=lambda done: observer.working("encoding", done, len(text)),
    )  # fmt: skip
    if not len(train):
        raise DataError(f"no training pair is left after filtering ({counts.describe()}): see [data] for the limits")
    if "valid" not in texts:
        return train, None
    return train, build_piece_corpus(texts["valid"], *encode, data, folder / "valid.pieces", None, filters=False)


def _counted(items: Iterable[One], observer: Observer) -> Iterator[One]:
    """Passes on what is read, and tells how much it was."""
    for number, item in enumerate(items):
        if number % OFTEN == 0:
            observer.working("reading", number)
        yield item


def _remark_on_space(data: DataConfig, folder: Path) -> str | None:
    """What to say, before anything takes long, where the disk may not hold the corpus as text and as pieces."""
    given = [Path(path) for name in DATA_PATHS if (path := getattr(data, name))]
    needed = sum(
        SPACE * (UNPACKED if path.suffix == ".gz" else 1) * path.stat().st_size for path in given if path.is_file()
    )
    free = free_space(folder)
    if free is None or free >= needed:
        return None
    return (
        f"{folder}: the prepared corpus may come to {readable_size(round(needed))}, and {readable_size(free)} are "
        "free; free some space, or choose another disk with --run-dir"
    )


def _remark_on_quotes(text: TextCorpus) -> str | None:
    """Where the fields of a table seem to be quoted, as spreadsheets write those with quotes or line breaks in them."""
    quoted = sum(any(len(side) > 1 and side[0] == side[-1] == '"' for side in pair) for pair in text)
    if quoted < MIN_QUOTED * len(text):
        return None
    return (
        f'{quoted:,} of {len(text):,} pairs have a side in double quotes ("..."), which are text as it is: where a '
        "spreadsheet put them there, set data.tsv_quotes = true"
    )


def _check_validation(config: Config, valid: PieceCorpus) -> None:
    """Finds out now, not at the first validation, that sentences are longer than can be validated with."""
    longest = np.maximum(valid.source_lengths, valid.target_lengths)
    index = int(longest.argmax())
    if config.model.positions == "learned" and longest[index] + 1 > config.model.max_positions:
        raise DataError(
            f"pair {index + 1} of the validation set has {longest[index]:,} pieces, too many for model.max_positions = "
            f"{config.model.max_positions}: leave it out, or raise model.max_positions"
        )
    if longest.min() > LONGEST_VALIDATED:
        raise DataError(
            f"{corpus_name(config.data, 'valid')}: every pair has a side of more than {LONGEST_VALIDATED:,} pieces; "
            "none of them counts for the validation loss: add shorter ones, or train without a validation set"
        )


def sound_tokenizer(run: Run) -> Tokenizer | None:
    """The tokenizer of a run, if it is whole and, as far as that is known, the one that the run began with."""
    try:
        tokenizer = Tokenizer.load(run.path)
    except TokenizerError:
        return None
    return tokenizer if run.known_identity().get("tokenizer", found := tokenizer.content_hash()) == found else None


def _kept_tokenizer(config: Config, run: Run, observer: Observer) -> Tokenizer | None:
    """The tokenizer of a run that goes on; None where it has none yet, or a damaged one, which is then made anew."""
    if (kept := sound_tokenizer(run)) is not None:
        return kept
    if any((run.path / name).exists() for name in ("tokenizer.model", "source.model", "target.model")):
        what = f"{run.path}: its tokenizer is damaged"
    elif run.checkpoints():
        what = f"{run.path}: its tokenizer is missing"
    else:
        return None
    if config.training.init_from:
        raise RunError(f"{what}: copy it from the run that training began with, {config.training.init_from}")
    if "tokenizer" not in run.known_identity():
        raise RunError(f"{what}, and nothing tells what it was: copy it anew, or start anew with --overwrite")
    observer.message(f"{what}: it is made anew")
    return None


def _check_made_anew(run: Run, tokenizer: Tokenizer) -> None:
    """Raises RunError where it is not the one that the run began with."""
    if run.known_identity().get("tokenizer", found := tokenizer.content_hash()) != found:
        raise RunError(
            f"{run.path}: the tokenizer that the corpus gives is not the one that this run began with: the corpus, or "
            "SentencePiece, is another one; put it back, copy the tokenizer from a copy of the run, or start anew with "
            "--overwrite"
        )


def _held_out(data: DataConfig, folder: Path, split: Split, observer: Observer) -> TextCorpus:
    pairs = read_pairs(data, split)
    text, _ = build_text_corpus(pairs, folder / f"{split}.text", drop_empty=False, drop_duplicates=False)
    if not len(text):
        raise DataError(f"{corpus_name(data, split)}: no sentence pairs, and they are the {split} set")
    if blank := sum(not (source.strip() and target.strip()) for source, target in text):
        if blank == len(text):
            raise DataError(
                f"{corpus_name(data, split)}: each of the {blank:,} pairs of the {split} set has an empty side: "
                "check the files, and which columns are read"
            )
        observer.message(
            f"{corpus_name(data, split)}: pairs with an empty side, which count in the scores: {blank:,} of "
            f"{len(text):,}"
        )
    return text
