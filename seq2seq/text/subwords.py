"""Random segmentations of encoded sentences, for subword regularisation.

BPE-dropout (Provilkov et al. 2020, arXiv 1910.13267, algorithm 1) for BPE models; for unigram models the smoothed
probabilities of all segmentations (Kudo 2018, arXiv 1804.10959, section 3.2, l = infinity).

SentencePiece can sample too, but what 0.2.3 draws from a seed differs from process to process, so that a resumed run
would see other pieces (0.2.1 was steady); and its BPE-dropout draws once for a merge where the paper draws again at
every step, which adds about twice as many pieces. Here the distribution over the segmentations of a word is kept as a
graph, made as far as it is needed, and numpy walks through the graphs of all words of many sentences at once.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import add

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from seq2seq.text.model_proto import NORMAL, piece_types
from seq2seq.text.tokenizer import TokenizerError

MAX_EDGES = 2_000_000  # of one graph, which then begins anew: some 200 MB at most
MAX_RUN_PIECES = 16  # of a run of characters that pieces can connect; longer ones are cut
END, UNKNOWN = -1, -2  # instead of the state that an edge leads to
PROBABILITY_BITS = 32
NO_CHARACTER = 0x110000  # of a special piece: one more than the last code point


class SubwordSampler:
    """Draws segmentations of the sentences that a SentencePiece model has encoded.

    strength: for BPE the probability of leaving out a merge: near 0 all merges are done, at 1 none. For unigram the
    exponent alpha of the probabilities: the smaller, the more alike they are. Unknown characters and bytes stay as they
    are. Raises TokenizerError for a model of another kind, which has but one segmentation.
    """

    def __init__(self, processor: sentencepiece.SentencePieceProcessor, strength: float) -> None:
        self._unigram = _is_unigram(processor)
        self._vocabulary = _Vocabulary(processor)
        self._strength = strength
        self._begin_anew()

    def _begin_anew(self) -> None:
        graph = _UnigramGraph if self._unigram else _BpeGraph
        self._graph: _Graph = graph(self._vocabulary, self._strength)
        self._roots: dict[bytes, int] = {}

    def sample(
        self, sentences: Sequence[NDArray[np.int32]], random: np.random.Generator
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """One segmentation of each sentence: all pieces one after the other [N], and the sentences' lengths [B]; int32.

        sentences: B plain encodings, without special ids. What is drawn for them is a function of them, in their
        order, and of the state of `random`; not of what was sampled before.
        """
        ids = np.concatenate([np.zeros(0, np.int32), *sentences])
        ends = np.cumsum([len(sentence) for sentence in sentences])
        if not len(ids):
            return ids, np.zeros(len(sentences), np.int32)
        if self._graph.num_edges > MAX_EDGES:
            self._begin_anew()
        first = self._vocabulary.runs(ids, ends)
        sizes, pieces = self._graph.walk(self._roots_of(ids, first), random)
        total = np.concatenate([[0], np.cumsum(sizes)])
        ends_in_runs = np.searchsorted(first, ends)
        return pieces, np.diff(total[ends_in_runs], prepend=0).astype(np.int32)

    def _roots_of(self, ids: NDArray[np.int32], first: NDArray[np.int64]) -> NDArray[np.int64]:
        """The state to begin with for each run of `ids`; `first` are the places where they begin."""
        content, known = ids.tobytes(), self._roots
        bounds = (4 * np.append(first, len(ids))).tolist()
        runs = [content[start:end] for start, end in pairwise(bounds)]
        for run in set(runs) - known.keys():
            plain = array("i", run).tolist()
            known[run] = self._graph.root(plain)
        return np.array([known[run] for run in runs], np.int64)


def _is_unigram(processor: sentencepiece.SentencePieceProcessor) -> bool:
    """Whether a model is unigram; False is BPE. SentencePiece does not tell, but does not do what a model cannot do."""
    if _gives_something(lambda: processor.nbest_encode_as_ids("a", nbest_size=2)):
        return True
    if _gives_something(lambda: processor.sample_encode_as_ids("a", nbest_size=-1, alpha=0.5)):
        return False
    raise TokenizerError(
        "a SentencePiece model that is neither bpe nor unigram has only one segmentation of a text: set "
        "tokenizer.sample_source and tokenizer.sample_target to 0"
    )


def _gives_something(work: Callable[[], list[object]]) -> bool:
    """False where it raises RuntimeError, as in newer versions of SentencePiece, or gives nothing, as in older ones."""
    try:
        return bool(work())
    except RuntimeError:
        return False


class _Vocabulary:
    """What the pieces of a model say about segmentations. ids: those of the pieces that text can be made of."""

    def __init__(self, processor: sentencepiece.SentencePieceProcessor) -> None:
        size = processor.get_piece_size()
        self.pieces = [str(processor.id_to_piece(i)) for i in range(size)]
        self.scores = [float(processor.get_score(i)) for i in range(size)]
        # Symbols that the user defined are among what stays whole.
        special = [kind != NORMAL for kind in piece_types(processor.serialized_model_proto())]
        self.ids = {piece: i for i, piece in enumerate(self.pieces) if not special[i]}
        self.longest = max(map(len, self.ids), default=0)
        self._first, self._last = (
            np.array([NO_CHARACTER if special[i] else ord(self.pieces[i][end]) for i in range(size)], np.int64)
            for end in (0, -1)
        )
        inside = {pair for piece in self.ids for pair in pairwise(piece)}
        self._pairs = np.array([-1, *sorted(ord(one) << 21 | ord(other) for one, other in inside)], np.int64)

    def runs(self, ids: NDArray[np.int32], ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the runs begin that can be segmented apart: no piece reaches over the beginning of one.

        ids: encoded sentences one after the other; ends: their ends. A run is mostly a word, sometimes a part of one:
        between letters that no piece has side by side, where the paper would take the word as a whole. In text without
        spaces, too, runs are short.
        """
        pairs = self._last[ids[:-1]] << 21 | self._first[ids[1:]]
        begins = np.append(True, self._pairs[np.searchsorted(self._pairs, pairs, side="right") - 1] != pairs)
        begins[ends[ends < len(ids)]] = True
        places = np.arange(len(ids))
        in_run = places - np.maximum.accumulate(np.where(begins, places, 0))
        return np.flatnonzero(in_run % MAX_RUN_PIECES == 0)


class _Graph:
    """States, and edges from one to another that give pieces; a walk from a root to an end gives a segmentation.

    Edges are numbered, those of a state in a row. The key of an edge is the number of its state and, in the lower 32
    bits, the probability of it and the edges before it: to find the edge that a random number chooses, among the edges
    of all states, is one binary search. Integers, so that it does not depend on the number of a state.
    """

    def __init__(self, vocabulary: _Vocabulary, strength: float) -> None:
        self.vocabulary, self.strength = vocabulary, strength
        self._first_edges = array("i")  # of every state
        self._keys = array("q")
        self._next = array("i")  # the state that an edge leads to, END or UNKNOWN
        self._starts, self._sizes = array("i"), array("i")  # the pieces that an edge gives, in `_given`
        self._given = array("i", range(len(vocabulary.pieces)))

    @property
    def num_edges(self) -> int:
        return len(self._keys)

    def root(self, plain: list[int]) -> int:
        """The state to begin with for a run of characters, told by its plain pieces."""
        pieces, ids = self.vocabulary.pieces, self.vocabulary.ids
        text = "".join(pieces[i] for i in plain)
        if all(pieces[i] in ids for i in plain) and all(character in ids for character in text):
            return self._root(text, plain)
        return self._fixed(plain)

    def _root(self, text: str, plain: list[int]) -> int:
        raise NotImplementedError

    def _expand(self, edge: int) -> int:
        """The state that an edge to an UNKNOWN one leads to."""
        raise NotImplementedError

    def _fixed(self, plain: list[int]) -> int:
        return self._add_state([1.0], [END], [self._give(plain)], [len(plain)])

    def _give(self, ids: list[int]) -> int:
        """Where in `_given` these pieces stand, in a row."""
        start = len(self._given)
        self._given.extend(ids)
        return start

    def _add_state(self, chances: list[float], following: list[int], starts: list[int], sizes: list[int]) -> int:
        """chances: the probability of each edge and those before it; of the last one 1."""
        state = len(self._first_edges)
        self._first_edges.append(self.num_edges)
        self._keys.extend([(state << PROBABILITY_BITS) + round(chance * 2**PROBABILITY_BITS) for chance in chances])
        self._next.extend(following)
        self._starts.extend(starts)
        self._sizes.extend(sizes)
        return state

    def walk(
        self, roots: NDArray[np.int64], random: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """One walk from each root: how many pieces each gave [W], and all of them, one walk after the other."""
        walks, states = np.arange(len(roots)), roots
        steps = []
        while len(walks):
            edges = self._choose(states, random)
            starts, sizes = np.frombuffer(self._starts, np.int32)[edges], np.frombuffer(self._sizes, np.int32)[edges]
            gives = sizes > 0
            steps.append((walks[gives], starts[gives], sizes[gives]))
            following = np.frombuffer(self._next, np.int32)[edges]
            goes_on = following != END
            walks, states = walks[goes_on], following[goes_on].astype(np.int64)
        owners, starts, sizes = (np.concatenate(parts) for parts in zip(*steps, strict=True))
        order = np.argsort(owners, kind="stable")
        owners, starts, sizes = owners[order], starts[order], sizes[order]
        before = np.cumsum(sizes) - sizes
        places = np.repeat(starts - before, sizes) + np.arange(sizes.sum())
        counts = np.bincount(owners, weights=sizes, minlength=len(roots)).astype(np.int64)
        return counts, np.frombuffer(self._given, np.int32)[places]

    def _choose(self, states: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        """An edge of each state, by their probabilities; the states that they lead to are known afterwards."""
        drawn = random.integers(0, 1 << PROBABILITY_BITS, len(states), dtype=np.int64)
        edges = np.searchsorted(np.frombuffer(self._keys, np.int64), (states << PROBABILITY_BITS) + drawn, side="right")
        for edge in np.unique(edges[np.frombuffer(self._next, np.int32)[edges] == UNKNOWN]).tolist():
            self._next[edge] = self._expand(edge)
        return edges


class _UnigramGraph(_Graph):
    """A state is what is left of a run, an edge a piece that it begins with."""

    def __init__(self, vocabulary: _Vocabulary, strength: float) -> None:
        super().__init__(vocabulary, strength)
        self._states: dict[str, tuple[int, float]] = {"": (END, 0.0)}  # and the logarithm of the sum over all paths

    def _root(self, text: str, plain: list[int]) -> int:
        for start in range(len(text) - 1, -1, -1):
            rest = text[start:]
            if rest not in self._states:
                self._states[rest] = self._state(rest)
        return self._states[text][0]

    def _state(self, rest: str) -> tuple[int, float]:
        ids, scores = self.vocabulary.ids, self.vocabulary.scores
        found = []
        for end in range(1, min(len(rest), self.vocabulary.longest) + 1):
            piece = ids.get(rest[:end])
            if piece is not None:
                following, weight = self._states[rest[end:]]
                found.append((self.strength * scores[piece] + weight, piece, following))
        highest = max(weight for weight, _, _ in found)
        total, sums = 0.0, []
        for weight, _, _ in found:
            total += math.exp(weight - highest)
            sums.append(total)
        pieces, following_states = [piece for _, piece, _ in found], [following for _, _, following in found]
        state = self._add_state([part / total for part in sums], following_states, pieces, [1] * len(found))
        return state, highest + math.log(total)


class _BpeGraph(_Graph):
    """At every step each possible merge is left out with probability p, and the best of the others is done.

    Where all are left out, or none is possible, that is the end. There are two kinds of states. From the first, the
    best merge is done at every step until it is left out: after k steps with probability (1 - p)^k p, or never. That
    leads to one of the second kind, where the best merge has been left out: the j-th best after it, counted from 0, is
    done with probability p^j (1 - p), which leads to one of the first kind, or none is. So a walk has few steps where p
    is small, and needs few states.
    """

    def __init__(self, vocabulary: _Vocabulary, strength: float) -> None:
        super().__init__(vocabulary, strength)
        self._costs = {piece: -vocabulary.scores[i] for piece, i in vocabulary.ids.items()}
        self._states: dict[tuple[bool, bytes], int] = {}
        # Of each state: whether the best merge is left out, and the pieces.
        self._segmentations: list[tuple[bool, bytes]] = []

    def _root(self, text: str, plain: list[int]) -> int:
        merged, _ = self._merge(list(text))
        # Where merging does not lead to the plain pieces, SentencePiece has made them in another way.
        return self._state(False, list(text)) if self._ids(merged) == plain else self._fixed(plain)

    def _ids(self, texts: list[str]) -> list[int]:
        ids = self.vocabulary.ids
        return [ids[text] for text in texts]

    def _merge(self, texts: list[str]) -> tuple[list[str], list[int]]:
        """What pieces become when the best merge is done at every step, and the places of these merges."""
        texts, places, cost = texts.copy(), [], self._costs.get
        costs = [cost(pair, math.inf) for pair in map(add, texts, texts[1:])]
        while costs and (lowest := min(costs)) < math.inf:
            place = costs.index(lowest)
            places.append(place)
            texts[place] += texts.pop(place + 1)
            del costs[place]
            if place:
                costs[place - 1] = cost(texts[place - 1] + texts[place], math.inf)
            if place < len(costs):
                costs[place] = cost(texts[place] + texts[place + 1], math.inf)
        return texts, places

    def _other_merges(self, texts: list[str]) -> list[int]:
        """The places of the possible merges after the best one, in their order."""
        pairs = enumerate(map(add, texts, texts[1:]))
        found = sorted((self._costs[pair], place) for place, pair in pairs if pair in self._costs)
        return [place for _, place in found[1:]]

    def _state(self, left_out: bool, texts: list[str]) -> int:
        key = left_out, array("i", self._ids(texts)).tobytes()
        if key not in self._states:
            if left_out:
                places, chance = self._other_merges(texts), self.strength
            else:
                (texts, places), chance = self._merge(texts), 1.0 - self.strength
            # An edge that gives nothing has the place of its merge instead of the place of its pieces.
            self._states[key] = self._add_state(
                [*(1.0 - chance**count for count in range(1, len(places) + 1)), 1.0],
                [*(UNKNOWN for _ in places), END],
                [*places, self._give(self._ids(texts))],
                [*(0 for _ in places), len(texts)],
            )
            self._segmentations.append(key)
        return self._states[key]

    def _fixed(self, plain: list[int]) -> int:
        self._segmentations.append((False, b""))
        return super()._fixed(plain)

    def _expand(self, edge: int) -> int:
        state = bisect_right(self._first_edges, edge) - 1
        left_out, content = self._segmentations[state]
        texts = [self.vocabulary.pieces[i] for i in array("i", content)]
        for place in self._starts[edge : edge + 1] if left_out else self._starts[self._first_edges[state] : edge]:
            texts[place] += texts.pop(place + 1)
        return self._state(not left_out, texts)
