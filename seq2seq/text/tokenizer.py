"""SentencePiece (Kudo and Richardson 2018): text to pieces and back.

Special ids are the same everywhere: pad 0, unk 1, bos 2, eos 3. Encoding adds none of them; the batches do.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Literal

import sentencepiece

from seq2seq.config import LEAST_COVERAGE, TokenizerConfig
from seq2seq.errors import UserError
from seq2seq.text.model_proto import ModelProtoError, check_model_proto
from seq2seq.text.special_ids import with_special_ids
from seq2seq.untrusted import open_regular

PAD, UNK, BOS, EOS = 0, 1, 2, 3
SHARED_FILE, SOURCE_FILE, TARGET_FILE = "tokenizer.model", "source.model", "target.model"
MAX_MODEL_BYTES = 64 << 20  # a SentencePiece model of a million pieces stays below this
MAX_LEARNING_LINE_BYTES = 4192  # SentencePiece's own default: it would skip longer lines, so they are cut before
MAX_LEARNING_CHARACTERS = MAX_LEARNING_LINE_BYTES // 4
# Fewer lines than this are encoded and decoded one by one: for a list SentencePiece begins threads, and waits for them
# where other work has the cores.
FEW_LINES = 64
# SentencePiece's own default, on every machine: sums over threads, and with them the pieces, depend on their number.
LEARNING_THREADS = 16


class TokenizerError(UserError):
    """A SentencePiece model that cannot be learned, read, or used here."""


class Tokenizer:
    """One SentencePiece model for both sides, or one for each.

    Built with `learn` or `load`. `source_bytes` and `target_bytes` are the serialised models; the target's is the
    source's where the vocabulary is shared.
    """

    def __init__(
        self,
        source_bytes: bytes,
        target_bytes: bytes | None = None,
        *,
        name: str = "tokenizer",
        target_name: str = "target tokenizer",
    ) -> None:
        """name, target_name: what the models are called in error messages."""
        self.shared = target_bytes is None
        self.source_bytes = source_bytes
        self.target_bytes = source_bytes if target_bytes is None else target_bytes
        self.source = _processor(self.source_bytes, name)
        self.target = self.source if target_bytes is None else _processor(target_bytes, target_name)

    @property
    def source_vocab_size(self) -> int:
        return int(self.source.get_piece_size())

    @property
    def target_vocab_size(self) -> int:
        return int(self.target.get_piece_size())

    @classmethod
    def learn(
        cls,
        config: TokenizerConfig,
        sources: Iterable[str],
        targets: Iterable[str],
        *,
        seed: int,
        pairs: int | None = None,
    ) -> Tokenizer:
        """Learns from text as configured, or reads the models that the configuration names.

        sources and targets are read once, as streams. pairs: how many lines either has; where a model would be learned
        from more than `max_sentences`, it is from a random sample of so many, drawn with `seed`. None: from all. Raises
        TokenizerError where there is too little text.
        """
        if config.source_model:
            source = _own_model(config.source_model)
            target = _own_model(config.target_model) if config.target_model else None
            return cls(source, target, name=config.source_model, target_name=config.target_model)
        most = config.max_sentences
        if config.shared:
            both = _interleave(sources, targets)
            return cls(_learn(config, _sample(both, None if pairs is None else 2 * pairs, most, seed)))
        return cls(*(_learn(config, _sample(side, pairs, most, seed)) for side in (sources, targets)))

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Reads `tokenizer.model`, or `source.model` and `target.model`, from a run folder."""
        shared, source, target = (folder / name for name in (SHARED_FILE, SOURCE_FILE, TARGET_FILE))
        if shared.exists() or not source.exists():
            return cls(read_model(shared), name=str(shared))
        return cls(read_model(source), read_model(target), name=str(source), target_name=str(target))

    def files(self) -> dict[str, bytes]:
        """What a run folder keeps: file names and contents."""
        if self.shared:
            return {SHARED_FILE: self.source_bytes}
        return {SOURCE_FILE: self.source_bytes, TARGET_FILE: self.target_bytes}

    def content_hash(self) -> str:
        """SHA-256 over the models: equal tokenizers have equal hashes."""
        digest = hashlib.sha256()
        for name, content in self.files().items():
            digest.update(f"{name} {len(content)}\n".encode())
            digest.update(content)
        return digest.hexdigest()

    def encode_source(self, lines: list[str]) -> list[list[int]]:
        """Ids of each line, without special ids."""
        return _encode(self.source, lines)

    def encode_target(self, lines: list[str]) -> list[list[int]]:
        """Ids of each line, without special ids."""
        return _encode(self.target, lines)

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Target text of each list of ids; special ids vanish, unknown pieces become SentencePiece's mark."""
        clean = [[int(i) for i in sequence if i not in (PAD, BOS, EOS)] for sequence in ids]
        if len(clean) < FEW_LINES:
            return [str(self.target.decode(sequence)) for sequence in clean]
        return [str(text) for text in self.target.decode(clean)]

    def says_nothing(self, ids: Sequence[int]) -> bool:
        """Whether a source sentence, which is not empty, has unknown characters and spaces only."""
        return bool(ids) and all(i == UNK or self.source.id_to_piece(int(i)) == "▁" for i in ids)

    def unknown_text(self, line: str, ids: Sequence[int], side: Literal["source", "target"] = "source") -> list[str]:
        """What stands in a line where its pieces are unknown, each text once; ids: of the line, or the first."""
        return list(dict.fromkeys(self.unknown_places(line, ids, side).values()))

    def unknown_places(
        self, line: str, ids: Sequence[int], side: Literal["source", "target"] = "source"
    ) -> dict[int, str]:
        """The same by the places of the pieces; ids may end with others than the line's, such as end-of-sentence."""
        found: dict[int, str] = {}
        if UNK not in ids:
            return found
        spans = _spans(self.source if side == "source" else self.target, line)
        for place, (piece, (begin, end)) in enumerate(zip(ids, spans, strict=False)):
            if piece == UNK:
                # Of a character that becomes several pieces the last one has it.
                found[place] = line[begin : next((later for _, later in spans[place:] if later > begin), end)]
        return found

    def source_pieces(self, ids: Sequence[int]) -> list[str]:
        """The pieces as written in the model, `▁` for a space."""
        return [str(self.source.id_to_piece(int(i))) for i in ids]

    def source_spans(self, line: str) -> list[tuple[int, int]]:
        """Where each piece begins and ends in the line as it was given, in characters.

        Of several pieces that stand for one character together, the last has it, and the others end where they begin.
        """
        return _spans(self.source, line)

    def target_pieces(self, ids: Sequence[int]) -> list[str]:
        """The pieces as written in the model, `▁` for a space."""
        return [str(self.target.id_to_piece(int(i))) for i in ids]

    def target_ids(self, pieces: Sequence[str]) -> list[int]:
        """The ids of pieces as `target_pieces` writes them."""
        return [int(self.target.piece_to_id(piece)) for piece in pieces]


def read_model(path: Path) -> bytes:
    """The bytes of a SentencePiece model file; refuses one that is missing or implausibly large."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_MODEL_BYTES:
                raise TokenizerError(f"{path}: {size:,} bytes is too large for a SentencePiece model")
            return file.read()
    except OSError as error:
        raise TokenizerError(f"{path}: the SentencePiece model cannot be read: {error.strerror}") from None


def _own_model(name: str) -> bytes:
    """A model of the user's with the special ids that are used here; a damaged one as it is, to be refused."""
    content = read_model(Path(name))
    try:
        check_model_proto(content)
    except ModelProtoError:
        return content
    try:
        return with_special_ids(content)
    except ModelProtoError as error:
        raise TokenizerError(f"{name}: {error}: learn it without that among the user-defined symbols") from None


def _processor(content: bytes, name: str) -> sentencepiece.SentencePieceProcessor:
    try:
        check_model_proto(content)
        processor = sentencepiece.SentencePieceProcessor(model_proto=content)
    except ModelProtoError as error:
        raise TokenizerError(f"{name}: not a SentencePiece model, or a damaged one: {error}") from None
    except (RuntimeError, ValueError, TypeError):
        raise TokenizerError(f"{name}: not a SentencePiece model, or a damaged one") from None
    ids = (processor.pad_id(), processor.unk_id(), processor.bos_id(), processor.eos_id())
    if ids != (PAD, UNK, BOS, EOS):
        raise TokenizerError(
            f"{name}: has pad, unk, bos, eos = {ids}; this project needs (0, 1, 2, 3): learn it with "
            "--pad_id=0 --unk_id=1 --bos_id=2 --eos_id=3"
        )
    return processor


def _encode(processor: sentencepiece.SentencePieceProcessor, lines: list[str]) -> list[list[int]]:
    clean = [_clean(line) for line in lines]
    if len(clean) < FEW_LINES:
        return [processor.encode(line) for line in clean]
    encoded: list[list[int]] = processor.encode(clean)
    return encoded


def _spans(processor: sentencepiece.SentencePieceProcessor, line: str) -> list[tuple[int, int]]:
    return list(processor.encode(_clean(line), out_type="offset_mapping")["offsets"])


def _clean(line: str) -> str:
    # A lone surrogate cannot be UTF-8; it can only come from a JSON escape, and is unknown text.
    return line if line.isascii() else line.encode("utf-8", "replace").decode("utf-8")


def _interleave(sources: Iterable[str], targets: Iterable[str]) -> Iterator[str]:
    for source, target in zip(sources, targets, strict=True):
        yield source
        yield target


def _sample(lines: Iterable[str], count: int | None, most: int, seed: int) -> Iterator[str]:
    """`most` of `count` lines in their order, any as likely as any other (Knuth, volume 2, 3.4.2, algorithm S).

    SentencePiece can sample, too, but version 0.2.3 draws other lines in every process, whatever its seed: a vocabulary
    would be no function of the run's.
    """
    if count is None or count <= most:
        yield from lines
        return
    random, wanted = Random(seed), most
    for left, line in zip(range(count, 0, -1), lines, strict=True):
        if random.random() * left < wanted:
            wanted -= 1
            yield line


def _cut(line: str) -> Iterator[str]:
    """A line in parts that are short enough to learn from, cut at spaces where there are any."""
    while len(line) > MAX_LEARNING_CHARACTERS:
        end = line.rfind(" ", 1, MAX_LEARNING_CHARACTERS) + 1 or MAX_LEARNING_CHARACTERS
        yield line[:end]
        line = line[end:]
    yield line


def _learn(config: TokenizerConfig, lines: Iterable[str]) -> bytes:
    output = io.BytesIO()
    # NUL is SentencePiece's own end of string; it carries no meaning in text.
    sentences = (part.replace("\0", " ") for line in lines for part in _cut(line) if part and not part.isspace())
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences,
            model_writer=output,
            model_type=config.algorithm,
            vocab_size=config.vocab_size,
            character_coverage=config.character_coverage,
            normalization_rule_name=config.normalization,
            byte_fallback=config.byte_fallback,
            # No input_sentence_size: it would draw from the lines, see `_sample`.
            max_sentence_length=MAX_LEARNING_LINE_BYTES,
            num_threads=LEARNING_THREADS,
            hard_vocab_limit=False,
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise TokenizerError(_explain(config, str(error))) from None
    return output.getvalue()


def _explain(config: TokenizerConfig, message: str) -> str:
    reason = message.strip().splitlines()[-1] if message.strip() else "unknown reason"
    if "required_chars" in message or "smaller than" in message:
        numbers = re.search(r"(\d+) vs (\d+)", message)
        needed = f" to {int(numbers[2]):,} or more" if numbers else ""
        what, remedy = "the number of different characters in the corpus", "lower tokenizer.character_coverage"
        if config.byte_fallback:
            what, remedy = f"{what} and the 256 bytes of tokenizer.byte_fallback", "do without those"
        other = f", or {remedy}" if config.byte_fallback or config.character_coverage > LEAST_COVERAGE else ""
        return f"tokenizer.vocab_size = {config.vocab_size} is smaller than {what}: raise it{needed}{other}"
    if "sentences" in message or "empty" in message or "all_chars_count" in message:
        return "the training corpus has no text to learn a tokenizer from"
    return f"SentencePiece could not learn a model of {config.vocab_size} pieces: {reason}"
