"""Subword regularisation: the training pairs of an epoch, segmented anew at random.

What an epoch holds is a pure function of (seed, epoch), whatever was sampled before: a resumed run, or one that asks
for epochs in another order or ahead of time, finds the same pieces.
"""

from __future__ import annotations

import mmap
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray

from seq2seq.config import DataConfig, TokenizerConfig
from seq2seq.text.corpus import PieceCorpus
from seq2seq.text.errors import unwritable
from seq2seq.text.subwords import SubwordSampler
from seq2seq.text.tokenizer import Tokenizer

# Pairs that are sampled at once, from one seed. Part of what (seed, epoch) means: with another number others are drawn.
CHUNK_PAIRS = 4096


class SampledEpoch:
    """The pairs of one epoch, numbered as in the piece corpus. Rows are read-only views: copy them to write.

    source_lengths, target_lengths: pieces of each pair, without end-of-sentence; int32, in memory.
    """

    def __init__(self, plain: PieceCorpus, source: _Sequences | None, target: _Sequences | None) -> None:
        """source, target: what was sampled; None for a side that stays as in `plain`."""
        self._plain, self._source, self._target = plain, source, target
        self.source_lengths = plain.source_lengths if source is None else source.lengths
        self.target_lengths = plain.target_lengths if target is None else target.lengths

    def __len__(self) -> int:
        return len(self._plain)

    def source(self, index: int) -> NDArray[np.int32]:
        """The source pieces of a pair, [S], without special ids."""
        return self._plain.source(index) if self._source is None else self._source[index]

    def target(self, index: int) -> NDArray[np.int32]:
        """The target pieces of a pair, [T], without special ids."""
        return self._plain.target(index) if self._target is None else self._target[index]


class SampledPairs:
    """Gives the pairs of any epoch, sampled as [tokenizer] says; made by one background thread, ahead if wished.

    Exactly the pairs of `plain` are sampled; a side that is not sampled has the pieces of `plain`. So has a sentence
    whose sample is longer than `data.max_source_length` or `data.max_target_length`, which bound memory and learned
    positions. The length ratio, which tells wrong pairs, is not asked again.

    In memory are 12 bytes a pair for each sampled side of an epoch, and up to 200 MB of segmentations a side; the
    pieces, 4 bytes each, are in nameless files in `folder`. Two epochs are there at once where one is prefetched.
    Close it after use, or use it in a `with` statement. Its methods are for one thread.
    """

    def __init__(
        self,
        plain: PieceCorpus,
        tokenizer: Tokenizer,
        config: TokenizerConfig,
        data: DataConfig,
        folder: Path,
        *,
        seed: int,
    ) -> None:
        """plain: pairs encoded with this tokenizer. Raises TokenizerError for a model that cannot be sampled from."""
        self._plain, self._folder, self._seed = plain, folder, seed
        self._source = self._target = None
        if config.sample_source:
            sampler = SubwordSampler(tokenizer.source, config.sample_source)
            self._source = _Side(0, sampler, plain.source, data.max_source_length)
        if config.sample_target:
            sampler = SubwordSampler(tokenizer.target, config.sample_target)
            self._target = _Side(1, sampler, plain.target, data.max_target_length)
        self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sampling")
        self._jobs: dict[int, tuple[Future[SampledEpoch], threading.Event]] = {}

    def __enter__(self) -> SampledPairs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def for_epoch(self, epoch: int) -> SampledEpoch:
        """The pairs of an epoch; waits for them. Lets go of all that was made ready but this epoch and the next.

        Raises what sampling them raised: DataError where there is no space.
        """
        for other in self._jobs.keys() - {epoch, epoch + 1}:
            self._drop(other)
        self.prefetch(epoch)
        return self._jobs[epoch][0].result()

    def prefetch(self, epoch: int) -> None:
        """Begins to sample an epoch in the background, unless that was done. Errors are raised by `for_epoch`."""
        if epoch not in self._jobs:
            stop = threading.Event()
            self._jobs[epoch] = self._background.submit(self._sample, epoch, stop), stop

    def close(self) -> None:
        """Stops what is being sampled, within a chunk, and waits for that. Epochs that were handed out stay whole."""
        for epoch in list(self._jobs):
            self._drop(epoch)
        self._background.shutdown()

    def _drop(self, epoch: int) -> None:
        future, stop = self._jobs.pop(epoch)
        stop.set()
        future.cancel()

    def _sample(self, epoch: int, stop: threading.Event) -> SampledEpoch:
        source, target = (self._sample_side(side, epoch, stop) for side in (self._source, self._target))
        return SampledEpoch(self._plain, source, target)

    def _sample_side(self, side: _Side | None, epoch: int, stop: threading.Event) -> _Sequences | None:
        if side is None:
            return None
        lengths = np.zeros(len(self._plain), np.int32)
        try:
            with tempfile.TemporaryFile(dir=self._folder) as file:
                for start in range(0, len(lengths), CHUNK_PAIRS):
                    if stop.is_set():
                        raise CancelledError
                    rows = range(start, min(start + CHUNK_PAIRS, len(lengths)))
                    random = np.random.Generator(np.random.PCG64([self._seed, epoch, start, side.number, 0x5AB]))
                    pieces, lengths[rows.start : rows.stop] = side.sample(rows, random)
                    file.write(pieces.tobytes())
                return _Sequences(lengths, file)
        except OSError as error:
            raise unwritable(self._folder, error) from None


@dataclass(frozen=True)
class _Side:
    """What is to be sampled of one side: the unsampled pieces of every pair. longest: pieces of a sample."""

    number: int
    sampler: SubwordSampler
    plain: Callable[[int], NDArray[np.int32]]
    longest: int

    def sample(self, rows: range, random: np.random.Generator) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The pieces of these rows one after the other, and their lengths."""
        plain = [self.plain(row) for row in rows]
        pieces, lengths = self.sampler.sample(plain, random)
        if lengths.max() <= self.longest:
            return pieces, lengths
        samples = np.split(pieces, np.cumsum(lengths)[:-1])
        kept = [sample if len(sample) <= self.longest else plain[i] for i, sample in enumerate(samples)]
        return np.concatenate(kept), np.array([len(sample) for sample in kept], np.int32)


class _Sequences:
    """Sequences of pieces in a file, memory-mapped; a file without a name goes with the last view of it."""

    def __init__(self, lengths: NDArray[np.int32], file: IO[bytes]) -> None:
        """file: the sequences one after the other, int32. It may be closed afterwards."""
        self.lengths = lengths
        self._starts = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=self._starts[1:])
        self._ids = np.zeros(0, np.int32)
        file.flush()  # written, and not through the mapping: a full disk is then an error and not a fatal signal
        if self._starts[-1]:
            self._ids = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.int32)

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        if not 0 <= index < len(self.lengths):
            raise IndexError(f"pair {index} of {len(self.lengths)}")
        return self._ids[self._starts[index] : self._starts[index + 1]]
