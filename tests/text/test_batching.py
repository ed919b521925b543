"""Batches: which pairs are together, in which order, and how they are laid out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from seq2seq.text.batching import (
    Batch,
    Indices,
    Lengths,
    chain_hash,
    collate,
    in_order,
    pack,
    pad,
    padded_tokens,
    plan_epoch,
    updates,
)
from seq2seq.text.tokenizer import BOS, EOS, PAD


@dataclass
class Pairs:
    """Encoded pairs in memory."""

    rows: list[tuple[list[int], list[int]]]

    @property
    def source_lengths(self) -> Lengths:
        return np.array([len(source) for source, _ in self.rows], dtype=np.int32)

    @property
    def target_lengths(self) -> Lengths:
        return np.array([len(target) for _, target in self.rows], dtype=np.int32)

    def source(self, index: int) -> NDArray[np.int32]:
        return np.array(self.rows[index][0], dtype=np.int32)

    def target(self, index: int) -> NDArray[np.int32]:
        return np.array(self.rows[index][1], dtype=np.int32)


def lengths_of(pairs: list[tuple[int, int]]) -> tuple[Lengths, Lengths]:
    source, target = np.array(pairs, dtype=np.int32).reshape(-1, 2).T
    return source, target


def plans_equal(one: list[Indices], other: list[Indices]) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


properties = settings(deadline=None, max_examples=100)
length_pairs = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=80).map(lengths_of)
seeds = st.integers(0, 2**31 - 1)
pieces = st.lists(st.integers(4, 99), max_size=7)
some_pairs = st.lists(st.tuples(pieces, pieces), min_size=1, max_size=6).map(Pairs)


# The plan of an epoch


@properties
@given(lengths=length_pairs, budget=st.integers(1, 300), seed=seeds, epoch=st.integers(0, 10_000))
def test_every_pair_is_in_exactly_one_micro_batch(
    lengths: tuple[Lengths, Lengths], budget: int, seed: int, epoch: int
) -> None:
    plan = plan_epoch(*lengths, budget, seed=seed, epoch=epoch)
    assert all(len(indices) for indices in plan)
    assert sorted(int(i) for indices in plan for i in indices) == list(range(len(lengths[0])))


@properties
@given(lengths=length_pairs, budget=st.integers(1, 300))
def test_micro_batches_keep_to_their_tokens_or_are_one_pair(lengths: tuple[Lengths, Lengths], budget: int) -> None:
    source, target = lengths
    for indices in plan_epoch(source, target, budget, seed=1, epoch=0):
        if len(indices) > 1:
            assert len(indices) * (int(target[indices].max()) + 1) <= budget
            assert len(indices) * (int(source[indices].max()) + 1) <= 2 * budget


def test_a_pair_longer_than_the_budget_is_a_batch_of_its_own() -> None:
    source, target = lengths_of([(3, 3), (3, 1000), (1000, 3), (3, 3)])
    plan = plan_epoch(source, target, 20, seed=1, epoch=0)
    assert {1} in [set(indices.tolist()) for indices in plan]
    assert {2} in [set(indices.tolist()) for indices in plan]


def test_batches_are_filled_as_far_as_they_go() -> None:
    source, target = lengths_of([(9, 9)] * 100)
    assert {len(indices) for indices in plan_epoch(source, target, 100, seed=1, epoch=0)} == {10}


@properties
@given(lengths=length_pairs, budget=st.integers(1, 300), seed=seeds, epoch=st.integers(0, 100))
def test_the_plan_is_a_function_of_seed_and_epoch(
    lengths: tuple[Lengths, Lengths], budget: int, seed: int, epoch: int
) -> None:
    np.random.seed(0)
    plan = plan_epoch(*lengths, budget, seed=seed, epoch=epoch)
    np.random.seed(1)
    torch.manual_seed(1)
    assert plans_equal(plan, plan_epoch(*lengths, budget, seed=seed, epoch=epoch))


@properties
@given(seed=seeds, epoch=st.integers(0, 1000), other=st.tuples(seeds, st.integers(0, 1000)))
def test_other_seeds_and_epochs_shuffle_otherwise(seed: int, epoch: int, other: tuple[int, int]) -> None:
    lengths = lengths_of([(n % 7 + 1, n % 5 + 1) for n in range(200)])
    plan = plan_epoch(*lengths, 30, seed=seed, epoch=epoch)
    assert plans_equal(plan, plan_epoch(*lengths, 30, seed=other[0], epoch=other[1])) == (other == (seed, epoch))
    later = plan_epoch(*lengths, 30, seed=seed, epoch=epoch + 1)
    # Not only their order: sentences meet others, too.
    assert {frozenset(indices.tolist()) for indices in plan} != {frozenset(indices.tolist()) for indices in later}


@settings(deadline=None, max_examples=60)
@given(count=st.integers(0, 400), budget=st.integers(100, 1500), seed=seeds)
def test_all_epochs_have_the_same_number_of_batches(count: int, budget: int, seed: int) -> None:
    """The number of steps in so many epochs is known beforehand."""
    random = np.random.default_rng(seed)
    target = np.clip(random.lognormal(2.6, 0.6, count), 1, 200).astype(np.int32)
    lengths = np.clip(target * random.lognormal(0.0, 0.4, count), 1, 200).astype(np.int32), target
    counts = {len(plan_epoch(*lengths, budget, seed=seed, epoch=epoch)) for epoch in range(4)}
    assert len(counts) == 1


def test_batches_do_not_come_in_the_order_of_their_lengths() -> None:
    _, target = lengths = lengths_of([(n, n) for n in range(1, 201)])
    longest = [int(target[indices].max()) for indices in plan_epoch(*lengths, 400, seed=1, epoch=0)]
    assert longest not in (sorted(longest), sorted(longest, reverse=True))


def test_sentences_of_the_lengths_of_multi30k_need_little_padding() -> None:
    """Captions of about 13 pieces, source and target lengths correlated, as in Multi30k."""
    random = np.random.default_rng(0)
    target = np.clip(random.lognormal(2.6, 0.35, 29_000), 3, 60).astype(np.int32)
    source = np.clip(target * random.lognormal(0.0, 0.2, 29_000), 3, 60).astype(np.int32)
    plan = plan_epoch(source, target, 4096, seed=1, epoch=0)
    assert padded_tokens(plan, target) < (target + 1).sum() / 0.90
    assert padded_tokens(plan, source) < (source + 1).sum() / 0.85


@properties
@given(lengths=length_pairs.filter(lambda lengths: len(lengths[0]) > 0), budget=st.integers(1, 300))
def test_padded_tokens_are_what_padding_shows(lengths: tuple[Lengths, Lengths], budget: int) -> None:
    plan = plan_epoch(*lengths, budget, seed=1, epoch=0)
    for side in lengths:
        batches = [pad([np.full(side[i], 5, dtype=np.int32) for i in indices], end=EOS) for indices in plan]
        assert padded_tokens(plan, side) == sum(ids.numel() for ids in batches)


def test_nothing_is_no_padding() -> None:
    assert padded_tokens([], np.zeros(0, np.int32)) == 0
    assert plan_epoch(np.zeros(0, np.int32), np.zeros(0, np.int32), 10, seed=1, epoch=0) == []


# Updates


@properties
@given(count=st.integers(0, 40), accumulate=st.integers(1, 5))
def test_updates_take_the_micro_batches_of_the_plan_in_its_order(count: int, accumulate: int) -> None:
    plan = [np.array([i], dtype=np.int64) for i in range(count)]
    grouped = updates(plan, accumulate=accumulate)
    assert [int(indices[0]) for update in grouped for indices in update] == list(range(count))
    assert all(len(update) == accumulate for update in grouped[:-1])
    assert all(0 < len(update) <= accumulate for update in grouped)


# Batches


def test_the_hash_of_all_batches_knows_their_pairs_order_and_lengths() -> None:
    pairs = Pairs([([4] * (n % 3), [5] * n) for n in range(8)])
    longer = Pairs([(source, [*target, 6]) for source, target in pairs.rows])

    def chained(pairs: Pairs, *updates: list[list[int]]) -> str:
        found = ""
        for update in updates:
            found = chain_hash(found, pairs, [np.array(indices, dtype=np.int64) for indices in update])
        return found

    plans = (
        ([[1, 2], [3]], [[4]]),
        ([[1], [2, 3]], [[4]]),
        ([[1, 2], [3], [4]],),
        ([[2, 1], [3]], [[4]]),
        ([[1, 2], [3]],),
    )
    hashes = {chained(pairs, *plan) for plan in plans} | {chained(longer, *plans[0])}
    assert len(hashes) == len(plans) + 1
    assert chained(pairs, *plans[0]) == chained(pairs, *plans[0])


def test_a_batch_is_laid_out_as_the_decoder_needs_it() -> None:
    pairs = Pairs([([10, 11, 12], [20]), ([13], [21, 22]), ([], [])])
    batch = collate(pairs, np.array([1, 0, 2]))
    assert batch.source.tolist() == [13, EOS, 10, 11, 12, EOS, EOS]
    assert batch.source_starts.tolist() == [0, 2, 6, 7]
    assert batch.target_input.tolist() == [BOS, 21, 22, BOS, 20, BOS]
    assert batch.target_output.tolist() == [21, 22, EOS, 20, EOS, EOS]
    assert batch.target_starts.tolist() == [0, 3, 5, 6]
    assert batch.num_target_tokens == 6
    ids = (batch.source, batch.target_input, batch.target_output, batch.source_starts, batch.target_starts)
    assert {tensor.dtype for tensor in ids} == {torch.int64}
    assert all(tensor.is_contiguous() for tensor in ids)


def sentences(ids: torch.Tensor, starts: torch.Tensor) -> list[list[int]]:
    """The sentences of one side of a batch, special ids included."""
    places = starts.tolist()
    assert places[0] == 0 and places[-1] == len(ids), "every token is in a sentence"
    return [ids[start:end].tolist() for start, end in pairwise(places)]


@properties
@given(pairs=some_pairs, data=st.data())
def test_batches_hold_their_pairs(pairs: Pairs, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(pairs.rows))))
    chosen = [pairs.rows[i] for i in order]
    batch = collate(pairs, np.array(order))
    assert sentences(batch.source, batch.source_starts) == [[*source, EOS] for source, _ in chosen]
    inputs = sentences(batch.target_input, batch.target_starts)
    outputs = sentences(batch.target_output, batch.target_starts)
    assert inputs == [[BOS, *target] for _, target in chosen]
    assert outputs == [[*target, EOS] for _, target in chosen]
    # The input is the output shifted right (section 3.1).
    assert [row[1:] for row in inputs] == [row[:-1] for row in outputs]
    assert batch.num_target_tokens == sum(len(target) + 1 for _, target in chosen)
    assert PAD not in {*batch.source.tolist(), *batch.target_input.tolist(), *batch.target_output.tolist()}


def test_packing_puts_special_ids_only_where_asked() -> None:
    sequences = [np.array([7, 8], dtype=np.int32), np.array([9], dtype=np.int32)]
    for special, ids, starts in (
        ({}, [7, 8, 9], [0, 2, 3]),
        ({"start": BOS}, [BOS, 7, 8, BOS, 9], [0, 3, 5]),
        ({"end": EOS}, [7, 8, EOS, 9, EOS], [0, 3, 5]),
        ({"start": BOS, "end": EOS}, [BOS, 7, 8, EOS, BOS, 9, EOS], [0, 4, 7]),
    ):
        packed, places = pack(sequences, **special)
        assert (packed.tolist(), places.tolist()) == (ids, starts)
        assert packed.dtype == places.dtype == torch.int64


@properties
@given(rows=st.lists(pieces, min_size=1, max_size=6), start=st.none() | st.just(BOS), end=st.none() | st.just(EOS))
def test_packing_is_padding_without_the_padding(rows: list[list[int]], start: int | None, end: int | None) -> None:
    sequences = [np.array(row, dtype=np.int32) for row in rows]
    packed, starts = pack(sequences, start=start, end=end)
    padded = pad(sequences, start=start, end=end)
    assert sentences(packed, starts) == [[piece for piece in row if piece != PAD] for row in padded.tolist()]


def test_padding_puts_special_ids_only_where_asked() -> None:
    sequences = [np.array([7, 8], dtype=np.int32), np.array([9], dtype=np.int32)]
    assert pad(sequences).tolist() == [[7, 8], [9, PAD]]
    assert pad(sequences, start=BOS, end=EOS).tolist() == [[BOS, 7, 8, EOS], [BOS, 9, EOS, PAD]]


def test_a_batch_stays_where_it_is_on_the_cpu() -> None:
    batch = collate(Pairs([([4], [5])]), np.array([0]))
    assert batch.to(torch.device("cpu")) is batch


@properties
@given(pairs=some_pairs, budget=st.integers(1, 30))
def test_validation_sees_every_pair_once_and_always_in_the_same_order(pairs: Pairs, budget: int) -> None:
    batches: list[Batch] = list(in_order(pairs, budget, 10**6))
    seen = [
        (tuple(source), tuple(target))
        for batch in batches
        for source, target in zip(
            sentences(batch.source, batch.source_starts),
            sentences(batch.target_output, batch.target_starts),
            strict=True,
        )
    ]
    assert sorted(seen) == sorted(((*source, EOS), (*target, EOS)) for source, target in pairs.rows)
    for one, again in zip(batches, in_order(pairs, budget, 10**6), strict=True):
        assert torch.equal(one.source, again.source) and torch.equal(one.target_output, again.target_output)
        assert torch.equal(one.source_starts, again.source_starts)


def test_validation_leaves_out_what_is_too_long_on_either_side() -> None:
    pairs = Pairs([([5] * 3, [6]), ([5] * 4, [6]), ([5], [6] * 4), ([5], [6] * 3)])
    batches = list(in_order(pairs, 100, 3))
    sources = [row for batch in batches for row in sentences(batch.source, batch.source_starts)]
    targets = [row for batch in batches for row in sentences(batch.target_output, batch.target_starts)]
    assert len(sources) == len(targets) == 2
    assert max(map(len, sources)) == max(map(len, targets)) == 4  # three pieces and end-of-sentence
