"""The sampled pairs of an epoch: which pairs, in which pieces, and that only the seed and the epoch decide them."""

from __future__ import annotations

import errno
import hashlib
import io
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import sentencepiece

import seq2seq.text.sampling as sampling_module
from seq2seq.config import DataConfig, TokenizerConfig
from seq2seq.text.batching import PiecePairs, plan_epoch
from seq2seq.text.corpus import PieceCorpus, TextCorpus, build_piece_corpus, build_text_corpus
from seq2seq.text.errors import DataError
from seq2seq.text.sampling import SampledPairs
from seq2seq.text.tokenizer import BOS, EOS, PAD, UNK, Tokenizer, TokenizerError

Epoch = tuple[list[list[int]], list[list[int]]]

STEMS = ["low", "new", "wid", "weit", "häuf", "öff", "Tür", "Wett", "12"]
WORDS = [stem + ending for stem in STEMS for ending in ("er", "est", "en", "ig", "ung")]
LINES = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 3 + i % 7)) for i in range(1, 120)]
DATA = DataConfig(max_source_length=60, max_target_length=60)


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """With different vocabularies of the two sides."""
    config = TokenizerConfig(algorithm=request.param, vocab_size=90, shared=False, max_sentences=1000)
    return Tokenizer.learn(config, LINES, [line[::-1] for line in LINES], seed=1)


@dataclass(frozen=True)
class Corpus:
    """Text of which the filters dropped some, and what they left."""

    text: TextCorpus
    plain: PieceCorpus
    tokenizer: Tokenizer
    folder: Path

    def pairs(
        self, source: float = 0.2, target: float = 0.2, *, seed: int = 1, data: DataConfig = DATA
    ) -> SampledPairs:
        config = TokenizerConfig(sample_source=source, sample_target=target)
        return SampledPairs(self.plain, self.tokenizer, config, data, self.folder, seed=seed)


def corpus(tokenizer: Tokenizer, folder: Path, *, count: int = len(LINES), data: DataConfig = DATA) -> Corpus:
    """Every fifth pair is too long, every seventh has an empty side."""
    rows = []
    for number, line in enumerate(LINES[:count]):
        rows.append((" ".join([line] * 30) if number % 5 == 0 else line, "" if number % 7 == 0 else line[::-1]))
    text, _ = build_text_corpus(rows, folder / "text", drop_empty=False, drop_duplicates=False)
    encode = tokenizer.encode_source, tokenizer.encode_target
    plain = build_piece_corpus(text, *encode, data, folder / "pieces", None, filters=True)
    assert len(plain) < len(text)
    return Corpus(text, plain, tokenizer, folder)


@pytest.fixture
def made(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    monkeypatch.setattr(sampling_module, "CHUNK_PAIRS", 8)
    return corpus(tokenizer, tmp_path)


def content(pairs: PiecePairs) -> Epoch:
    rows = range(len(pairs.source_lengths))
    return [pairs.source(i).tolist() for i in rows], [pairs.target(i).tolist() for i in rows]


def test_an_epoch_has_the_kept_pairs_in_other_pieces(made: Corpus) -> None:
    with made.pairs() as sampled:
        epoch = sampled.for_epoch(3)
    assert len(epoch) == len(made.plain)
    source, target = content(epoch)
    plain_source, plain_target = content(made.plain)
    assert source != plain_source and target != plain_target
    texts = [made.text[made.plain.line(i)] for i in range(len(epoch))]
    assert [made.tokenizer.source.decode(ids) for ids in source] == [text for text, _ in texts]
    assert made.tokenizer.decode(target) == [text for _, text in texts]
    assert not {PAD, UNK, BOS, EOS} & {i for line in source + target for i in line}
    for lengths, pieces in ((epoch.source_lengths, source), (epoch.target_lengths, target)):
        assert lengths.dtype == np.int32
        assert lengths.tolist() == [len(ids) for ids in pieces]
    assert epoch.source(0).dtype == epoch.target(0).dtype == np.int32
    plan = plan_epoch(epoch.source_lengths, epoch.target_lengths, 200, seed=1, epoch=3)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(epoch)))


def test_rows_outside_are_refused_and_rows_cannot_be_written(made: Corpus) -> None:
    with made.pairs() as sampled:
        epoch = sampled.for_epoch(0)
    for row in (epoch.source, epoch.target):
        for outside in (-1, len(epoch)):
            with pytest.raises(IndexError):
                row(outside)
        with pytest.raises(ValueError, match="read-only"):
            row(0)[0] = 5


def test_the_same_seed_and_epoch_give_the_same_pairs_and_others_do_not(made: Corpus) -> None:
    found: dict[tuple[int, int], list[Epoch]] = {}
    for order in ([0, 1, 2], [2, 0, 1], [1, 1, 0, 2]):
        for seed in (1, 2):
            with made.pairs(seed=seed) as sampled:
                for epoch in order:
                    found.setdefault((seed, epoch), []).append(content(sampled.for_epoch(epoch)))
    assert all(one == same[0] for same in found.values() for one in same)
    for side in (0, 1):
        assert len({str(same[0][side]) for same in found.values()}) == 6


def test_source_and_target_draw_apart(tokenizer: Tokenizer, tmp_path: Path) -> None:
    shared = Tokenizer(tokenizer.source_bytes)
    text, _ = build_text_corpus(zip(LINES, LINES, strict=True), tmp_path / "t", drop_empty=True, drop_duplicates=False)
    encode = shared.encode_source, shared.encode_target
    plain = build_piece_corpus(text, *encode, DATA, tmp_path / "p", None, filters=True)
    with Corpus(text, plain, shared, tmp_path).pairs() as sampled:
        source, target = content(sampled.for_epoch(0))
    assert source != target


def test_a_side_that_is_not_sampled_is_plain(made: Corpus) -> None:
    plain_source, plain_target = content(made.plain)
    with made.pairs() as sampled:
        source, target = content(sampled.for_epoch(0))
    with made.pairs(target=0.0) as sampled:
        assert content(sampled.for_epoch(0)) == (source, plain_target)
    with made.pairs(source=0.0) as sampled:
        assert content(sampled.for_epoch(0)) == (plain_source, target)
    with made.pairs(0.0, 0.0) as sampled:
        assert content(sampled.for_epoch(0)) == (plain_source, plain_target)


def test_chunks_do_not_hang_together(made: Corpus, tmp_path: Path) -> None:
    """The first chunks of a shorter corpus are those of a longer one; every chunk draws apart."""
    (tmp_path / "short").mkdir()
    short = corpus(made.tokenizer, tmp_path / "short", count=60)
    assert 20 < len(short.plain) < len(made.plain)
    with made.pairs() as long_pairs, short.pairs() as short_pairs:
        whole, part = content(long_pairs.for_epoch(0)), content(short_pairs.for_epoch(0))
    same = len(short.plain) // 8 * 8
    assert [side[:same] for side in part] == [side[:same] for side in whole]


@pytest.mark.parametrize(("tokenizer", "strength"), [("bpe", 0.5), ("unigram", 0.05)], indirect=["tokenizer"])
def test_a_sentence_whose_sample_is_too_long_keeps_its_plain_pieces(made: Corpus, strength: float) -> None:
    longest = int(made.plain.source_lengths.max())
    with (
        made.pairs(strength, 0.3, data=DataConfig(max_source_length=longest, max_target_length=10_000)) as limited,
        made.pairs(strength, 0.3, data=DataConfig(max_source_length=10_000, max_target_length=10_000)) as free,
    ):
        epoch, unlimited = limited.for_epoch(0), free.for_epoch(0)
    fell_back = 0
    for i in range(len(epoch)):
        sample = unlimited.source(i).tolist()
        fell_back += len(sample) > longest
        assert epoch.source(i).tolist() == (sample if len(sample) <= longest else made.plain.source(i).tolist())
        assert epoch.target(i).tolist() == unlimited.target(i).tolist()
    assert 0 < fell_back < len(epoch)
    assert epoch.source_lengths.max() <= longest


def test_a_corpus_without_pairs_has_epochs_without_pairs(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with corpus(tokenizer, tmp_path, count=1).pairs() as sampled:
        epoch = sampled.for_epoch(0)
    assert len(epoch) == len(epoch.source_lengths) == 0
    with pytest.raises(IndexError):
        epoch.source(0)


def test_a_model_that_cannot_be_sampled_is_told_at_once(made: Corpus) -> None:
    output = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=output, model_type="char", vocab_size=90, hard_vocab_limit=False,
        pad_id=PAD, unk_id=UNK, bos_id=BOS, eos_id=EOS, minloglevel=2,
    )  # fmt: skip
    characters = Corpus(made.text, made.plain, Tokenizer(output.getvalue()), made.folder)
    characters.pairs(0.0, 0.0).close()
    with pytest.raises(TokenizerError):
        characters.pairs(0.0, 0.1)


SCRIPT = """
import sys
from pathlib import Path
from seq2seq.config import DataConfig, TokenizerConfig
from seq2seq.text.corpus import PieceCorpus
from seq2seq.text.sampling import SampledPairs
from seq2seq.text.tokenizer import Tokenizer
import hashlib
folder = Path(sys.argv[1])
config = TokenizerConfig(sample_source=0.2, sample_target=0.2)
data = DataConfig(max_source_length=60, max_target_length=60)
plain = PieceCorpus(folder / "pieces")
sampled = SampledPairs(plain, Tokenizer.load(folder), config, data, folder, seed=1)
pairs = sampled.for_epoch(7)
sampled.prefetch(8)  # and is not closed: the process must end all the same
rows = [(pairs.source(i).tolist(), pairs.target(i).tolist()) for i in range(len(pairs))]
print(hashlib.sha256(repr(rows).encode()).hexdigest())
"""


def test_another_process_finds_the_same_pairs(tokenizer: Tokenizer, tmp_path: Path) -> None:
    made = corpus(tokenizer, tmp_path)
    for name, model in tokenizer.files().items():
        (tmp_path / name).write_bytes(model)
    with made.pairs() as sampled:
        sampled.for_epoch(2)
        rows = list(zip(*content(sampled.for_epoch(7)), strict=True))
    run = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == hashlib.sha256(repr(rows).encode()).hexdigest()


# Ahead of time


def test_a_prefetched_epoch_is_the_same_and_is_sampled_once(made: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    with made.pairs() as sampled:
        expected = [content(sampled.for_epoch(epoch)) for epoch in range(3)]
    with made.pairs() as sampled:
        calls = watch(sampled, monkeypatch)
        first = sampled.for_epoch(0)
        sampled.prefetch(1)
        sampled.prefetch(1)
        assert content(first) == expected[0]  # while the next one is made
        assert content(sampled.for_epoch(1)) == expected[1]
        assert content(sampled.for_epoch(1)) == expected[1]
        assert len(calls) == 4  # two sides of two epochs
        assert content(sampled.for_epoch(2)) == expected[2]
        assert content(first) == expected[0]
    assert content(first) == expected[0]  # closed, but handed out


def watch(sampled: SampledPairs, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs of the sides that are sampled from now on."""
    calls: list[int] = []
    sample = sampled._sample_side

    def watched(side: Any, epoch: int, stop: threading.Event) -> Any:
        calls.append(epoch)
        return sample(side, epoch, stop)

    monkeypatch.setattr(sampled, "_sample_side", watched)
    return calls


def test_what_is_not_asked_for_any_more_is_let_go(made: Corpus) -> None:
    with made.pairs() as sampled:
        for epoch in (0, 1, 2, 9):
            sampled.prefetch(epoch)
        sampled.for_epoch(1)
        assert sampled._jobs.keys() == {1, 2}


Work = Callable[[Any, range, np.random.Generator], Any]


def replace_work(monkeypatch: pytest.MonkeyPatch, work: Work) -> None:
    """What is done for each chunk of a side."""
    monkeypatch.setattr(sampling_module._Side, "sample", work)


def test_closing_stops_what_is_being_sampled(made: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    calls: list[range] = []

    def slow(side: Any, rows: range, random: np.random.Generator) -> Any:
        calls.append(rows)
        begun.set()
        assert go_on.wait(60)
        return np.full(len(rows), 5, np.int32), np.ones(len(rows), np.int32)

    replace_work(monkeypatch, slow)
    before = set(threading.enumerate())
    sampled = made.pairs()
    sampled.prefetch(0)
    sampled.prefetch(1)
    assert begun.wait(60)
    closing = threading.Thread(target=sampled.close)
    closing.start()
    while not sampled._background._shutdown:
        time.sleep(0.001)
    go_on.set()
    closing.join(60)
    assert not closing.is_alive()
    assert calls == [range(8)]  # of two sides of two epochs
    assert set(threading.enumerate()) <= before
    sampled.close()
    with pytest.raises(RuntimeError):
        sampled.for_epoch(0)


def test_what_goes_wrong_in_the_background_is_told_when_asked(made: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(side: Any, rows: range, random: np.random.Generator) -> Any:
        raise TokenizerError("it does not work")

    replace_work(monkeypatch, broken)
    with made.pairs() as sampled:
        sampled.prefetch(0)
        for _ in range(2):
            with pytest.raises(TokenizerError, match="it does not work"):
                sampled.for_epoch(0)


def test_a_full_disk_is_a_data_error(made: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.FileIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    def full(dir: Path) -> IO[bytes]:
        return Full(dir / "text")  # type: ignore[return-value]

    monkeypatch.setattr(sampling_module.tempfile, "TemporaryFile", full)
    with made.pairs() as sampled, pytest.raises(DataError, match="no space left"):
        sampled.for_epoch(0)


def test_the_folder_stays_as_it_was(made: Corpus) -> None:
    before = sorted(path.name for path in made.folder.iterdir())
    with made.pairs() as sampled:
        epoch = sampled.for_epoch(0)
        assert sorted(path.name for path in made.folder.iterdir()) == before
    assert len(epoch.source(0))


def test_memory_is_bounded(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 bytes a pair and side, and a chunk; lists of pieces would take a thousand bytes a pair."""
    monkeypatch.setattr(sampling_module, "CHUNK_PAIRS", 256)
    count = 8000
    line = " ".join(WORDS[:8])
    rows = ((line, line[::-1]) for _ in range(count))
    text, _ = build_text_corpus(rows, tmp_path / "t", drop_empty=True, drop_duplicates=False)
    encode = tokenizer.encode_source, tokenizer.encode_target
    data = DataConfig()
    plain = build_piece_corpus(text, *encode, data, tmp_path / "p", None, filters=True)
    with Corpus(text, plain, tokenizer, tmp_path).pairs(data=data) as sampled:
        sampled.for_epoch(0)  # the segmentations of the words
        tracemalloc.start()
        try:
            epoch = sampled.for_epoch(2)
            held, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert len(epoch) == len(plain) == count
    assert held < 30 * count + 100_000
    assert peak < 60 * count + 1_000_000
