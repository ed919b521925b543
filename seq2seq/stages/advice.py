"""What whoever trains should know before it begins: settings that count for nothing, corpora that mislead."""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Literal

from seq2seq.config import Config, DataConfig, TokenizerConfig
from seq2seq.evaluation.overlap import find_overlap
from seq2seq.evaluation.tokenization import tokenize_remark
from seq2seq.stages.finetuning import LEARNING, Hashes
from seq2seq.stages.preparing import Corpora
from seq2seq.text.reading import has_split, is_tsv
from seq2seq.text.visible import quoted
from seq2seq.training.optimizer import learning_rate

Side = Literal["source", "target"]
LOOKED_AT = 10_000  # lines, for what is unknown in them
SHOWN = 8
LEAST_RATE = 1e-5  # a learning rate below it is likely to be a mistake
MUCH_LOOKING_ALIKE = 0.01  # of the sentences
MUCH_UNKNOWN = 0.02  # of the training pieces: more than odd characters
MUCH_SEEN = 0.01  # of a held-out set's sources: more than short sentences that occur everywhere


def about_settings(config: Config) -> list[str]:
    """Settings that are made and have no effect."""
    data = config.data
    unused: list[tuple[str, str]] = []  # a field, and what it is for
    if not (data.dataset or data.train_pairs or data.valid_pairs or data.test_pairs):
        unused += [(name, "tables and datasets") for name in ("source_column", "target_column")]
    if not any(map(is_tsv, (data.train_pairs, data.valid_pairs, data.test_pairs))):
        unused += [(name, "TSV files") for name in ("tsv_header", "tsv_quotes")]
    if not data.dataset:
        unused += [(name, "a dataset") for name in ("dataset_config", "train_split", "valid_split", "test_split")]
    found = [
        f"data.{name} counts for nothing: it is for {what}, and there is none"
        for name, what in unused
        if getattr(data, name) != DataConfig.model_fields[name].default
    ]
    training, tokenizer = config.training, config.tokenizer
    if training.patience and not has_split(data, "valid"):
        found.append("training.patience counts for nothing: there is no validation set")
    if training.average == "best" and not has_split(data, "valid"):
        found.append("there is no validation set to tell which checkpoints are best: the last ones are averaged")
    if tokenizer.source_model:
        found += [
            f"tokenizer.{name} counts for nothing: the vocabulary is that of {tokenizer.source_model}"
            for name in LEARNING
            if name != "vocab_size" and getattr(tokenizer, name) != TokenizerConfig.model_fields[name].default
        ]
    peak = learning_rate(training, config.model.d_model, training.warmup_steps, None)
    if peak < LEAST_RATE:
        found.append(
            f"training.learning_rate_scale = {training.learning_rate_scale} makes a learning rate of {peak:.1e} at its "
            "peak, by which little is learned: it is a factor, 1 for the paper's"
        )
    return found


def about_corpora(config: Config, corpora: Corpora, hashes: Hashes | None) -> list[str]:
    """hashes: of the sources that the model will have seen, where that is known."""
    return [
        *_equal_sides(corpora),
        *_look_alikes(config, corpora),
        *_unknown_pieces(config, corpora),
        *_held_out_that_is_seen(corpora, hashes),
        *_tokenization(config, corpora),
    ]


def _equal_sides(corpora: Corpora) -> list[str]:
    pairs = list(zip(*corpora.train_text.first(LOOKED_AT), strict=True))
    equal = sum(source == target for source, target in pairs)
    if 2 * equal < len(pairs):
        return []
    return [f"{equal:,} of the first {len(pairs):,} pairs have the same text on both sides: are these the right files?"]


def _look_alikes(config: Config, corpora: Corpora) -> list[str]:
    """Characters that look like others, or like nothing, and are other text to the model."""
    normalization = config.tokenizer.normalization
    if config.tokenizer.source_model or config.training.init_from:
        return []
    lines = [line for side in corpora.train_text.first(LOOKED_AT) for line in side]

    def having(characters: str) -> int:
        return sum(any(one in line for one in characters) for line in lines)

    found = {}
    if normalization == "identity":
        composed = (len(unicodedata.normalize("NFC", line)) < len(line) for line in lines if not line.isascii())
        found = {"no-break spaces": having("\u00a0\u202f"), "decomposed accents": sum(composed)}
    if not normalization.startswith("nmt_"):
        found["invisible spaces or breaks"] = having("\u200b\u2028\ufeff")
    many = MUCH_LOOKING_ALIKE * len(lines)
    named = [f"{what} in {count:,}" for what, count in found.items() if count > many]
    remarks = []
    if named:
        remarks.append(
            f"of the first {len(lines):,} sentences there are {', '.join(named)}: to the model other text than what "
            "looks like it; tokenizer.normalization = nmt_nfkc makes it the same"
        )
    if (soft := having("\u00ad")) > many:
        remarks.append(f"soft hyphens in {soft:,} of the first {len(lines):,} sentences take words apart: remove them")
    return remarks


def _unknown_pieces(config: Config, corpora: Corpora) -> list[str]:
    found = []
    sides: tuple[Side, Side] = ("source", "target")
    for side, share in zip(sides, corpora.train.unknown_shares(), strict=True):
        if share <= MUCH_UNKNOWN:
            continue
        given = "training.init_from" if config.training.init_from else "tokenizer.source_model"
        learned = given == "tokenizer.source_model" and not config.tokenizer.source_model
        remedy = "raise tokenizer.character_coverage" if learned else f"without {given} a vocabulary is learned"
        if learned and config.tokenizer.character_coverage == 1.0:
            remedy = "SentencePiece has none for some characters, such as NUL; remove them from the text"
        named = _often_unknown(corpora, side)
        lost = f"lost (most often {quoted(' '.join(named))})" if named else "lost"
        found.append(f"{share:.0%} of the {side} pieces are unknown to the vocabulary, and {lost}: {remedy}")
    return found


def _often_unknown(corpora: Corpora, side: Side) -> list[str]:
    """The most frequent of the characters, or runs of them, that have no piece."""
    tokenizer, lines = corpora.tokenizer, corpora.train_text.first(LOOKED_AT)[side == "target"]
    encode = tokenizer.encode_source if side == "source" else tokenizer.encode_target
    found: Counter[str] = Counter()
    for line, ids in zip(lines, encode(lines), strict=True):
        found.update(tokenizer.unknown_places(line, ids, side).values())
    return [text for text, _ in found.most_common(SHOWN)]


def _held_out_that_is_seen(corpora: Corpora, hashes: Hashes | None) -> list[str]:
    found = []
    for name, text in (("validation", corpora.valid_text), ("test", corpora.test_text)):
        if text is None or hashes is None:
            continue
        overlap = find_overlap(list(text.sources()), hashes["exact"], hashes["normalized"])
        if overlap.exact > MUCH_SEEN * overlap.total:
            found.append(
                f"sources of the {name} set that are in the training data, too: {overlap.exact:,} of "
                f"{overlap.total:,}; its scores will be better than those of new text"
            )
    return found


def _tokenization(config: Config, corpora: Corpora) -> list[str]:
    for text in (corpora.valid_text, corpora.test_text):
        if text is not None:
            data = config.data
            remark = tokenize_remark(data.bleu_tokenize, data.target_language, text.targets())
            return [] if remark is None else [f"{remark} (data.bleu_tokenize)"]
    return []
