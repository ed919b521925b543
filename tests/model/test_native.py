"""The compiled kernels against the same operations in torch, in float64, and what they must never do."""

import math
import os
import platform
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from threading import Barrier

import pytest
import torch
from helpers import generations, kernels_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seq2seq.errors import OptionError
from seq2seq.model import native
from seq2seq.model.dropout import Seeds, dropout, native_dropout, seeded
from seq2seq.model.functional import embed, layer_norm, linear
from seq2seq.model.packed import Packed, Sentences, attend_packed
from seq2seq.training.loss import smoothed_cross_entropy
from seq2seq.training.r_drop import paired_cross_entropy

DTYPES = [torch.float32, torch.bfloat16]
ROUNDING = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}  # of the type that is stored, relative
SWITCHED = "SEQ2SEQ_KERNELS" in os.environ
HEAD_SIZES = [1, 7, 8, 12, 20, 32, 64, 80]
built = pytest.mark.skipif(not native.available(), reason="the compiled kernels were not built or are switched off")


@pytest.fixture(scope="module", autouse=True, params=generations() or ["none"])
def generation(request):
    """Everything here is tested with the kernels for each generation of processors that run on this one."""
    with kernels_of(request.param) if native.available() else nullcontext():
        yield request.param


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
@pytest.mark.parametrize("name", ["kernels", "kernels_avx2", "kernels_avx512"])
def test_the_source_has_nothing_that_newer_compilers_refuse(name):
    """The kernels would be missing there without a word."""
    if name != "kernels" and platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("for other processors")
    instructions = {"kernels_avx2": ["-mavx2", "-mfma"], "kernels_avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq"]}
    source = Path(native.__file__).with_name(f"{name}.c")
    refused = ("incompatible-pointer-types", "int-conversion", "implicit-function-declaration", "implicit-int")
    flags = [
        "-fsyntax-only",
        "-DKERNELS_SOURCE=0",
        *(f"-Werror={warning}" for warning in refused),
        *instructions.get(name, []),
    ]
    checked = subprocess.run(["gcc", *flags, str(source)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.skipif(SWITCHED, reason="SEQ2SEQ_KERNELS is set")
def test_the_kernels_are_there_where_there_is_a_compiler():
    """Or the tests below would be skipped without anyone's notice."""
    assert native.available()


@pytest.fixture
def calls(monkeypatch):
    """The names of the kernels that are called. What they could not read is not passed to them."""
    names, call = [], native.call

    def counted(name, dtype, *arguments):
        names.append(name)
        for tensor in arguments:
            if isinstance(tensor, torch.Tensor):
                assert tensor.dtype in (torch.float32, torch.int64, dtype), name
                assert tensor.is_contiguous() or name.startswith("attention"), name
        call(name, dtype, *arguments)

    monkeypatch.setattr(native, "call", counted)
    return names


def rounded_up(sentences, rows):
    """The same sentences with so many rows after them that belong to none."""
    return Sentences.of(sentences.starts, sentences.tokens + rows)


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def sentences_of(lengths):
    return Sentences.of(torch.tensor([0, *lengths]).cumsum(0))


def assert_near(value, expected, floor, dtype=None):
    """Up to one rounding of each element, and `floor` times the largest of all (0.1 where all are smaller), which is
    what float32 sums lose of numbers of either sign. dtype: what the value was rounded to, if it no longer has it."""
    assert value.shape == expected.shape
    largest = max(0.1, float(expected.detach().abs().max()))
    rounding = 1.01 * ROUNDING[dtype or value.dtype]
    torch.testing.assert_close(value.detach().double(), expected.detach(), rtol=rounding, atol=floor * largest)


def assert_as_in_float64(function, inputs, exact, floor=2e-6, gradients_floor=2e-5):
    """The result, and the gradients by all inputs for random ones from above; nothing that is given is written to.

    exact: the function in float64.
    """
    given_, inputs = inputs, [tensor.detach().clone().requires_grad_() for tensor in inputs]
    doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
    result, expected = function(*inputs), exact(*doubles)
    assert_near(result, expected, floor)
    above = random(*result.shape, seed=99, dtype=result.dtype)
    above_before, result_before = above.clone(), result.detach().clone()
    gradients = torch.autograd.grad(result, inputs, above)
    assert torch.equal(above, above_before) and torch.equal(result, result_before)
    assert all(map(torch.equal, inputs, given_))
    for tensor, gradient, correct in zip(
        inputs, gradients, torch.autograd.grad(expected, doubles, above.double()), strict=True
    ):
        assert gradient.dtype == tensor.dtype
        assert_near(gradient, correct, gradients_floor)


# Each kernel against torch


@built
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "columns", "width"), [(1, 1, 1), (5, 8, 3), (70, 24, 129), (33, 100, 17)])
def test_a_projection_and_its_gradients_are_torchs(calls, rows, columns, width, dtype):
    x, weight, bias = random(rows, columns, dtype=dtype), random(width, columns, seed=1), random(width, seed=2)
    weight, bias = weight.to(dtype).float(), bias.to(dtype).float()  # what the cast leaves
    coarse = 2e-6 if dtype == torch.float32 else 1e-2  # torch's own matrix products
    assert_as_in_float64(linear, [x, weight, bias], F.linear, coarse, max(coarse, 2e-5))
    assert calls == ["column_sums"]


@built
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 17), (70, 129), (2000, 5), (5, 2048)])
def test_a_biass_gradient_is_the_sum_over_rows(rows, columns, dtype):
    x = random(rows, columns, dtype=dtype)
    sums = torch.full((columns,), math.nan)
    native.call("column_sums", dtype, sums, x, rows, columns)
    torch.testing.assert_close(sums.double(), x.double().sum(0), rtol=0, atol=1e-6 * rows)


@built
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "d_model"),
    [(1, 8), (70, 12), (5, 20), (3, 100), (3, 127), (70, 128), (9, 129), (5, 256), (2, 512), (300, 16)],
)
def test_layer_normalisation_and_its_gradients_are_torchs(calls, rows, d_model, dtype):
    x, weight, bias = 3 * random(rows, d_model) + 2, random(d_model, seed=1), random(d_model, seed=2)
    assert_as_in_float64(
        lambda *inputs: layer_norm(*inputs, 1e-5),
        [x.to(dtype), weight, bias],
        lambda x, weight, bias: F.layer_norm(x, (d_model,), weight, bias, 1e-5),
    )
    assert calls == ["layer_norm", "layer_norm_backward"]


@built
def test_layer_normalisation_serves_any_shape_a_constant_row_and_a_mean_far_from_zero():
    weight, bias = random(24, seed=1), random(24, seed=2)
    x = random(2, 3, 24)
    x[0, 1] = 5.0
    x[1, 2] += 1000.0
    normed = layer_norm(x, weight.requires_grad_(), bias, 1e-5)
    expected = F.layer_norm(x.double(), (24,), weight.double(), bias.double(), 1e-5)
    torch.testing.assert_close(normed.double(), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(normed[0, 1], bias)


@built
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "d_model"), [(1, 8), (70, 12), (5, 20), (9, 129), (4, 512)])
def test_embeddings_and_their_gradient_are_torchs(calls, tokens, d_model, dtype):
    """Pieces come more than once, and their gradients add up."""
    generator = torch.Generator().manual_seed(0)
    ids, places = torch.randint(0, 6, (tokens,), generator=generator), torch.randint(0, 9, (tokens,))
    positions = random(9, d_model, seed=3)
    assert_as_in_float64(
        lambda table: embed(ids, table, positions, places, 1.7, 0.0, dtype),
        [random(30, d_model)],
        lambda table: F.embedding(ids, table) * 1.7 + positions.double()[places],
    )
    assert calls == ["embed", "embed_backward"]


@built
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_embeddings_gradient_goes_where_its_result_was_kept(dtype):
    """The mask of a seed shows in the embedding of ones."""
    ids, places = torch.tensor([3, 1, 3, 3, 0]), torch.zeros(5, dtype=torch.int64)
    nowhere = torch.zeros(1, 37)
    with seeded(4):
        kept = embed(ids, torch.ones(6, 37).requires_grad_(), nowhere, places, 1.0, 0.3, torch.float32).detach()
    assert 0.1 < float((kept == 0).float().mean()) < 0.5
    torch.testing.assert_close(kept[kept != 0], torch.full_like(kept[kept != 0], 1 / 0.7))
    positions = random(1, 37, seed=1)

    def embedded(table):
        with seeded(4):
            return embed(ids, table, positions, places, 2.0, 0.3, dtype)

    assert_as_in_float64(
        embedded,
        [random(6, 37)],
        lambda table: (F.embedding(ids, table) * 2.0 + positions.double()) * kept.double(),
    )


def attention_in_torch(projected, memory, layout, kept=None):
    """Each sentence by itself. kept: what dropout multiplies the weights by, [Nq, H, longest key]."""
    query, key, value = projected.unbind(1) if memory is None else (projected[:, 0], *memory.unbind(1))
    results = []
    for b in range(layout.queries.count):
        (q0, q1), (k0, k1) = (of.starts[b : b + 2].tolist() for of in (layout.queries, layout.keys))
        scores = torch.einsum("qhs,khs->hqk", query[q0:q1], key[k0:k1]) / math.sqrt(query.shape[-1])
        if layout.causal:
            scores = scores.masked_fill(torch.ones(q1 - q0, k1 - k0, dtype=torch.bool).triu(1), -math.inf)
        weights = scores.softmax(-1)
        if kept is not None:
            weights = weights * kept[q0:q1, :, : k1 - k0].transpose(0, 1).to(weights.dtype)
        results.append(torch.einsum("hqk,khs->qhs", weights, value[k0:k1]))
    return torch.cat(results)


def attention_inputs(layout, heads, size, dtype, *, across, seed=0):
    """Projections for self-attention, or for attention across with the memory's."""
    queries, keys = (len(of.positions) for of in (layout.queries, layout.keys))
    if not across:
        return [random(queries, 3, heads, size, seed=seed, dtype=dtype)]
    query, memory = random(queries, 1, heads, size, seed=seed), random(keys, 2, heads, size, seed=seed + 1)
    return [query.to(dtype), memory.to(dtype)]


def assert_attention_is_torchs(layout, heads, size, dtype, *, across, drop=0.0, kept=None, seed=0, coarse=1e-2):
    """coarse: for gradients of bfloat16, which are computed from results that were rounded."""

    def attended(projected, memory=None):
        with seeded(17):
            return attend_packed(projected, memory, layout, drop)

    assert_as_in_float64(
        attended,
        attention_inputs(layout, heads, size, dtype, across=across, seed=seed),
        lambda projected, memory=None: attention_in_torch(projected, memory, layout, kept),
        gradients_floor=2e-5 if dtype == torch.float32 else coarse,
    )


@built
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", HEAD_SIZES)
@pytest.mark.parametrize("kind", ["within", "causal", "across"])
def test_attention_and_its_gradients_are_torchs(calls, kind, size, dtype):
    some, others = sentences_of([5, 1, 17, 70, 3]), sentences_of([16, 1, 33, 2, 4])
    layout = Packed(some, others) if kind == "across" else Packed(some, some, causal=kind == "causal")
    assert_attention_is_torchs(layout, 3, size, dtype, across=kind == "across")
    assert calls == ["attention", "attention_backward"]


@built
@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4),
    kind=st.sampled_from(["within", "causal", "across"]),
    heads=st.integers(1, 4),
    size=st.sampled_from(HEAD_SIZES),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
)
def test_attention_serves_any_lengths(lengths, kind, heads, size, dtype, seed):
    some, others = map(sentences_of, zip(*lengths, strict=True))
    layout = Packed(some, others) if kind == "across" else Packed(some, some, causal=kind == "causal")
    assert_attention_is_torchs(layout, heads, size, dtype, across=kind == "across", seed=seed, coarse=0.05)


@built
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["within", "causal", "across"])
def test_rows_after_the_last_sentence_are_seen_by_nobody_and_attend_to_nothing(kind, dtype):
    """Whatever they hold: they come out as 0, and no gradient comes from or goes to them."""
    some, others = sentences_of([5, 1, 17]), sentences_of([16, 1, 3])
    layout = Packed(some, others) if kind == "across" else Packed(some, some, causal=kind == "causal")
    with_rows = Packed(rounded_up(some, 4), rounded_up(others, 3), causal=False)
    if kind != "across":
        with_rows = Packed(with_rows.queries, with_rows.queries, causal=layout.causal)
    inputs = attention_inputs(layout, 3, 20, dtype, across=kind == "across")
    longer = [
        torch.cat([tensor, torch.full((rows, *tensor.shape[1:]), math.nan, dtype=dtype)]).requires_grad_()
        for tensor, rows in zip(inputs, (4, 3), strict=False)
    ]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    memory = (None,) if kind != "across" else ()
    with seeded(3):
        plain = attend_packed(*inputs, *memory, layout, 0.3)
    with seeded(3):
        found = attend_packed(*longer, *memory, with_rows, 0.3)
    assert torch.equal(found[:23], plain) and torch.equal(found[23:], torch.zeros(4, 3, 20, dtype=dtype))
    above = random(23, 3, 20, seed=9, dtype=dtype)
    gradients = torch.autograd.grad(plain, inputs, above)
    beyond = torch.full((4, 3, 20), math.nan, dtype=dtype)
    for one, other in zip(torch.autograd.grad(found, longer, torch.cat([above, beyond])), gradients, strict=True):
        assert torch.equal(one[: len(other)], other) and not one[len(other) :].any()


@built
@pytest.mark.parametrize("size", [16, 64])
def test_the_exponential_is_exact_where_it_counts_and_nothing_where_it_does_not(size):
    """The weights of two keys whose scores are so far apart."""
    for distance in (0.0, 1e-3, 0.5, 1.0, 10.0, 50.0, 86.0, 100.0, 1e4, 3e38):
        projected = torch.zeros(2, 3, 1, size)
        projected[1, 0, 0, 0] = math.sqrt(size)
        projected[0, 1, 0, 0] = -distance
        projected[0, 2, 0, 0] = projected[1, 2, 0, 1] = 1.0
        layout = Packed(sentences_of([2]), sentences_of([2]), causal=True)
        far, near = attend_packed(projected, None, layout)[1, 0, :2].tolist()
        assert near == pytest.approx(1 / (1 + math.exp(-distance)), rel=1e-6)
        if distance < 87:
            assert far == pytest.approx(math.exp(-distance) / (1 + math.exp(-distance)), rel=1e-6)
        else:
            assert 0.0 <= far < 1e-37


def cross_entropy(logits, targets, smoothing, *, differentiate=True):
    """-log p, its mean over the vocabulary, and the gradient and smoothing / V, from the kernel; what became of the
    logits where that is not asked for."""
    rows, vocabulary = logits.shape
    changed = logits.clone()
    nll, uniform, inverse = torch.full((3, rows), math.nan).unbind()
    outputs = changed, nll, uniform, inverse, targets
    native.call("cross_entropy", logits.dtype, *outputs, rows, vocabulary, smoothing, int(differentiate))
    if not differentiate:
        return nll, uniform, changed
    return nll, uniform, changed.double() * inverse[:, None].double()


@built
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("vocabulary", [1, 2, 3, 16, 17, 31, 1000, 10_007])
def test_cross_entropy_and_its_gradient_are_torchs(vocabulary, smoothing, dtype):
    logits = (3 * random(7, vocabulary)).to(dtype)
    targets = torch.randint(0, vocabulary, (7,), generator=torch.Generator().manual_seed(1))
    targets[:2] = torch.tensor([0, vocabulary - 1])
    nll, uniform, gradient = cross_entropy(logits, targets, smoothing)
    exact = logits.double().requires_grad_()
    loss = F.cross_entropy(exact, targets, label_smoothing=smoothing, reduction="sum")
    assert_near(nll, F.cross_entropy(exact, targets, reduction="none"), 5e-6)
    assert_near(uniform, -exact.log_softmax(1).mean(1), 5e-6)
    assert_near(gradient, torch.autograd.grad(loss, exact)[0] + smoothing / vocabulary, 5e-6, dtype)
    again, _, untouched = cross_entropy(logits, targets, smoothing, differentiate=False)
    assert torch.equal(again, nll) and torch.equal(untouched, logits)


@built
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "d_model"), [(1, 1), (7, 12), (5, 129)])
def test_rows_are_scaled_and_shifted(rows, d_model, dtype):
    x, factors, shift = random(rows, d_model, dtype=dtype), random(rows, seed=1), random(d_model, seed=2)
    expected = x.double() * factors.double()[:, None] - shift.double()
    native.call("scale_rows", dtype, x, factors, shift, rows, d_model)
    assert_near(x, expected, 1e-6)


def paired(a, b, targets, smoothing, alpha, *, differentiate=True):
    """The loss of two predictions, its parts, and the gradients by both logits, from the kernel."""
    rows, vocabulary = a.shape
    a, b = a.clone(), b.clone()
    nll, uniform, divergence = torch.full((3, rows), math.nan).unbind()
    outputs = a, b, nll, uniform, divergence, targets, torch.empty(2 * vocabulary)
    native.call("cross_entropy_pair", a.dtype, *outputs, rows, vocabulary, smoothing, alpha, int(differentiate))
    return nll, uniform, divergence, a, b


@built
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("vocabulary", [1, 2, 3, 16, 17, 31, 1000, 10_007])
def test_the_cross_entropy_of_two_predictions_and_its_gradients_are_torchs(vocabulary, smoothing, dtype):
    a, b = ((2 * random(7, vocabulary, seed=seed)).to(dtype) for seed in (0, 1))
    targets = torch.randint(0, vocabulary, (7,), generator=torch.Generator().manual_seed(1))
    targets[:2] = torch.tensor([0, vocabulary - 1])
    *parts, by_a, by_b = paired(a, b, targets, smoothing, 3.0)
    exact = [logits.double().requires_grad_() for logits in (a, b)]
    log_p, log_q = (logits.log_softmax(1) for logits in exact)
    nll = -0.5 * (log_p + log_q).gather(1, targets[:, None])[:, 0]
    uniform = -0.5 * (log_p + log_q).mean(1)
    divergence = (log_p.exp() * (log_p - log_q) + log_q.exp() * (log_q - log_p)).sum(1)
    for part, expected in zip(parts, (nll, uniform, divergence), strict=True):
        assert_near(part, expected, 5e-6)
    loss = ((1 - smoothing) * nll + smoothing * uniform + 3.0 / 4 * divergence).sum()
    for found, expected in zip((by_a, by_b), torch.autograd.grad(loss, exact), strict=True):
        assert_near(found, expected, 5e-6)
    *again, same_a, same_b = paired(a, b, targets, smoothing, 3.0, differentiate=False)
    assert all(map(torch.equal, again, parts)) and torch.equal(same_a, a) and torch.equal(same_b, b)


@built
def test_small_probabilities_are_exact_to_six_digits():
    """Down to e^-80: the exponential has no absolute error."""
    logits = torch.cat([torch.zeros(1), -torch.arange(1.0, 80.0)])[None]
    _, _, gradient = cross_entropy(logits, torch.tensor([79]), 0.0)
    torch.testing.assert_close(gradient[0, :79].double(), logits.double().softmax(1)[0, :79], rtol=1e-6, atol=0)


# Dropout within attention


def kept_weights(layout, heads, drop, *, seed=17, dtype=torch.float32):
    """What dropout multiplies the weights by, [Nq, H, longest key]: with all scores alike, and the value of a
    sentence's key j a vector with a 1 at place j, place j of the result is weight j."""
    queries, keys = layout.queries, layout.keys
    size = keys.longest
    value = F.one_hot(keys.positions, size).to(dtype)[:, None].expand(-1, heads, -1)
    seen = keys.starts.diff().repeat_interleave(queries.starts.diff())
    if queries is keys:
        projected, memory = torch.zeros(len(queries.positions), 3, heads, size, dtype=dtype), None
        projected[:, 2] = value
        seen = queries.positions + 1 if layout.causal else seen
    else:
        projected = torch.zeros(len(queries.positions), 1, heads, size, dtype=dtype)
        memory = torch.zeros(len(keys.positions), 2, heads, size, dtype=dtype)
        memory[:, 1] = value
    with seeded(seed):
        return attend_packed(projected, memory, layout, drop) * seen[:, None, None]


@built
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["within", "causal", "across"])
def test_forward_and_backward_drop_the_same_weights(kind, dtype):
    some, others = sentences_of([5, 1, 17, 30, 3]), sentences_of([16, 1, 33, 2, 4])
    layout = Packed(some, others) if kind == "across" else Packed(some, some, causal=kind == "causal")
    kept = kept_weights(layout, 2, 0.4)
    kept = torch.where(kept == 0, 0.0, 1 / 0.6)
    for size in (20, 32):
        assert_attention_is_torchs(layout, 2, size, dtype, across=kind == "across", drop=0.4, kept=kept)


@built
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_attention_weights_are_dropped_at_the_given_rate_and_the_others_scaled(probability):
    sentences = sentences_of([64] * 8)
    kept = kept_weights(Packed(sentences, sentences), 4, probability).flatten()
    dropped = kept == 0
    deviation = math.sqrt(probability * (1 - probability) / len(kept))
    assert abs(float(dropped.float().mean()) - probability) < 5 * deviation
    torch.testing.assert_close(kept[~dropped], torch.full_like(kept[~dropped], 1 / (1 - probability)))


@built
def test_heads_queries_and_sentences_drop_independently():
    sentences = sentences_of([64] * 4)
    layout = Packed(sentences, sentences)
    dropped = (kept_weights(layout, 4, 0.5) == 0).float().view(4, 64, 4, 64)
    rows = dropped.flatten(0, 2)
    assert len(rows.unique(dim=0)) == len(rows)
    count = dropped.numel()
    for axis in range(4):
        one, other = dropped.narrow(axis, 0, dropped.shape[axis] - 1), dropped.narrow(axis, 1, dropped.shape[axis] - 1)
        correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
        assert abs(float(correlation)) < 6 / math.sqrt(count / 2), f"axis {axis}"
    other_seed = (kept_weights(layout, 4, 0.5, seed=18) == 0).float()
    correlation = torch.corrcoef(torch.stack([dropped.flatten(), other_seed.flatten()]))[0, 1]
    assert abs(float(correlation)) < 6 / math.sqrt(count)


@built
def test_which_weights_are_dropped_is_a_function_of_the_seed_alone():
    """Not of the numbers, their type or the size of a head; nor of what was dropped before."""
    layout = Packed(sentences_of([5, 9]), sentences_of([7, 9]))
    kept = kept_weights(layout, 3, 0.3)
    kept_weights(layout, 3, 0.3, seed=1)
    torch.manual_seed(0)
    assert torch.equal(kept_weights(layout, 3, 0.3), kept)
    assert torch.equal(kept_weights(layout, 3, 0.3, dtype=torch.bfloat16) == 0, kept == 0)
    assert not torch.equal(kept_weights(layout, 3, 0.3, seed=18) == 0, kept == 0)


@built
def test_every_bit_of_a_seed_makes_another_mask_and_those_of_a_stream_are_not_alike():
    count, base = 20_000, 0x0123456789ABCDEF

    def masks(seeds):
        kept, ones = torch.empty(len(seeds), count), torch.ones(count)
        for out, seed in zip(kept, seeds, strict=True):
            native.call("dropout", torch.float32, out, None, ones, count, seed, 2**31, 2.0)
        return (kept == 0).float()

    assert len(masks([base, *(base ^ (1 << bit) for bit in range(64))]).unique(dim=0)) == 65
    stream = Seeds(1)
    correlations = torch.corrcoef(masks([stream.next() for _ in range(60)])) - torch.eye(60)
    assert float(correlations.abs().max()) < 6 / math.sqrt(count)


# bfloat16, and numbers that are not finite


@built
def test_bfloat16_is_rounded_as_torch_rounds_it():
    """To nearest, ties to even; infinities and what is too large are infinite; a NaN stays one; any 32 bits."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randint(-(2**31), 2**31, (40_000,), generator=generator, dtype=torch.int64)
    ties = (torch.arange(2**16) << 16) | 0x8000
    edges = torch.tensor([0x7F800000, 0x7F800001, 0x7FFFFFFF, 0x7F7FFFFF, 0x7F7F8000, 0x7F7F7FFF, 0x80000000, 1, 0])
    patterns = torch.cat([patterns, ties, ties - 1, ties + 1, edges, edges | 0x80000000])
    numbers = patterns.to(torch.int32).view(torch.float32)
    table, minus_zero = numbers[None], torch.full((1, len(numbers)), -0.0)
    zero = torch.zeros(1, dtype=torch.int64)
    stored = embed(zero, table.clone().requires_grad_(), minus_zero, zero, 1.0, 0.0, torch.bfloat16)[0].detach()
    expected = numbers.bfloat16()
    assert torch.equal(stored.isnan(), numbers.isnan()) and numbers.isnan().any()
    real = ~numbers.isnan()
    assert torch.equal(stored[real].view(torch.int16), expected[real].view(torch.int16))


# NaNs as damaged memory has them: arithmetic makes others, and hands these on.
ODD_NANS = [struct.unpack("<f", struct.pack("<I", bits))[0] for bits in (0x7FC00001, 0x7FC001FF, 0xFFC000FF)]


@built
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", [math.nan, *ODD_NANS, math.inf, -math.inf])
def test_what_is_not_finite_is_so_after_every_kernel(number, dtype):
    """At any place of a vector register, and in its own row or sentence alone."""
    weight, bias = random(37, seed=1).requires_grad_(), random(37, seed=2)
    layout = Packed(sentences_of([3, 5, 4]), sentences_of([3, 5, 4]))
    for place in (0, 15, 16, 36):
        x = random(4, 37, dtype=dtype)
        x[2, place] = number
        bad = torch.tensor([False, False, True, False])
        assert torch.equal(~layer_norm(x, weight, bias, 1e-5).isfinite().all(1), bad)
        assert torch.equal(~dropout(x, 0.5, True).isfinite().all(1), bad)
        assert not linear(x, weight[None], torch.zeros(1))[2].isfinite()
        above = torch.autograd.grad(layer_norm(random(4, 37, dtype=dtype), weight, bias, 1e-5), weight, x)
        assert not above[0][place].isfinite()
        for part in range(3):
            projected = random(12, 3, 1, 37, dtype=dtype)
            projected[4, part, 0, place] = number
            attended = attend_packed(projected, None, layout)
            broken = ~attended.isfinite().flatten(1).all(1)
            assert broken[4] if part == 0 else broken[3:8].any()
            assert not broken[:3].any() and not broken[8:].any()


@built
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("number", [math.nan, *ODD_NANS, math.inf])
def test_logits_that_are_not_finite_make_a_loss_that_is_not(number, smoothing, dtype):
    for vocabulary in (16, 17, 37):
        for place in {0, 7, 15, vocabulary - 1}:
            for target in (0, vocabulary - 1):
                logits = random(3, vocabulary, dtype=dtype)
                logits[1, place] = number
                nll, _, gradient = cross_entropy(logits, torch.tensor([0, target, 1]), smoothing)
                assert nll.isfinite().tolist() == [True, False, True]
                assert gradient.isfinite().all(1).tolist() == [True, False, True]
                other = random(3, vocabulary, seed=1, dtype=dtype)
                for pair in ((logits, other), (other, logits)):
                    nll, _, divergence, *gradients = paired(*pair, torch.tensor([0, target, 1]), smoothing, 1.0)
                    assert nll.isfinite().tolist() == divergence.isfinite().tolist() == [True, False, True]
                    for gradient in gradients:
                        assert gradient[[0, 2]].isfinite().all()


@built
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 3e38])
def test_a_state_that_is_not_finite_makes_a_loss_that_is_not(number, dtype):
    states, weight = random(5, 8, dtype=dtype), 4 * random(11, 8, seed=1)
    states[3, 2] = number
    loss, nll = smoothed_cross_entropy(states.requires_grad_(), weight.requires_grad_(), torch.arange(5), 0.1)
    assert not loss.isfinite() and not nll.isfinite()


def test_the_odd_nans_are_written_as_they_are():
    values = torch.zeros(len(ODD_NANS))
    for place, number in enumerate(ODD_NANS):
        values[place] = number
    assert values.isnan().all() and (values.view(torch.int32) & 0x1FF != 0).all()


DEFAULT_TYPE = """
import sys, torch
from seq2seq.config import ModelConfig
from seq2seq.decoding.beam import beam_search, greedy_search
from seq2seq.decoding.scoring import score_batch
from seq2seq.model.functional import layer_norm, linear
from seq2seq.model.transformer import EOS, Transformer
from seq2seq.training.loss import smoothed_cross_entropy

torch.manual_seed(1)
sizes = ModelConfig(d_model=32, num_heads=4, d_ff=64, num_encoder_layers=1, num_decoder_layers=1)
model = Transformer(sizes, 100, 100, shared=True).eval()
x, weight, bias = torch.randn(400, 32).requires_grad_(), torch.randn(300, 32), torch.randn(300)
torch.set_default_dtype(getattr(torch, sys.argv[1]))
out = linear(layer_norm(x, weight[0], bias[:32], 1e-5), weight, bias)
loss, nll = smoothed_cross_entropy(out, torch.eye(300, dtype=torch.float32), torch.arange(300), 0.1)
loss.backward()
found = [out.sum(), loss, nll, x.grad.abs().sum()]
source = torch.tensor([[10, 20, 30, EOS], [10, 30, EOS, 0]])
beams = beam_search(model, source, [12, 12], beam_size=4, length_penalty=0.6)
for hypotheses in (greedy_search(model, source, [12, 12]), *beams):
    found += [torch.tensor(hypothesis.log_probability, dtype=torch.float64) for hypothesis in hypotheses]
print([round(float(value), 4) for value in found])
"""


@built
def test_torchs_default_type_changes_nothing():
    """Kernels write float32 where they are told to, whatever the tensors there were made as."""

    def results(dtype):
        done = subprocess.run([sys.executable, "-c", DEFAULT_TYPE, dtype], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert results("float32") == results("float64") == results("bfloat16")


@built
def test_shapes_that_do_not_belong_together_are_refused():
    x, weight, ids = random(4, 16), random(8).requires_grad_(), torch.arange(4)
    with pytest.raises(RuntimeError):
        layer_norm(x, weight, weight, 1e-5)
    table = random(20, 16).requires_grad_()
    for positions, places in ((random(9, 8), ids), (random(9, 16), ids[:2])):
        with pytest.raises(RuntimeError):
            embed(ids, table, positions, places, 1.0, 0.0, torch.float32)
    for function, states in ((smoothed_cross_entropy, (x,)), (paired_cross_entropy, (x, x))):
        more = (0.1,) if function is smoothed_cross_entropy else (0.1, 1.0)
        with pytest.raises(ValueError, match=r"5 targets for|targets \(5,\) are not \[N, D\] and \[N\]"):
            function(*states, table, torch.arange(5), *more)
    with pytest.raises(ValueError, match=r"states \(1, 4, 16\) and targets \(4,\) are not"):
        smoothed_cross_entropy(x[None], table, ids, 0.1)
    with pytest.raises(ValueError, match="4 targets for states"):
        paired_cross_entropy(x, x[:2], table, ids, 0.1, 1.0)
    few, many = sentences_of([2, 2]), sentences_of([3, 5])
    for projected, memory, layout in (
        (random(4, 3, 2, 8), None, Packed(many, many)),
        (random(4, 1, 2, 8), random(4, 2, 2, 8), Packed(few, many)),
        (random(4, 1, 2, 8), random(8, 2, 2, 16), Packed(few, many)),
    ):
        with pytest.raises(ValueError, match="do not fit sentences"):
            attend_packed(projected, memory, layout)


@built
def test_where_sentences_begin_may_be_any_integers():
    expected = sentences_of([2, 3])
    for starts in (torch.tensor([0, 2, 5], dtype=torch.int32), torch.tensor([[0, 1], [2, 1], [5, 1]])[:, 0]):
        made = Sentences.of(starts)
        assert made.starts.dtype == torch.int64 and made.starts.is_contiguous()
        assert torch.equal(made.starts, expected.starts) and torch.equal(made.positions, expected.positions)


# Memory


def every_call(dtype, place, size):
    """(name, outputs, arguments) of a call of every kernel and of each of its ways; place: puts a tensor somewhere."""
    rows, d_model, vocabulary, heads, head_size = size, 2 * size + 3, 3 * size + 2, 3, 20
    random_numbers = native_dropout(0.3, training=True)

    def new(*shape, dtype=torch.float32):
        return place(torch.full(shape, math.nan, dtype=dtype))

    x, y = (place(random(rows, d_model, seed=seed, dtype=dtype)) for seed in (0, 1))
    shape = rows, d_model
    yield "column_sums", [sums := new(d_model)], (sums, x, *shape)
    yield "dropout", [out := new(*shape, dtype=dtype)], (out, y, x, rows * d_model, *random_numbers)
    yield "dropout", [out := new(*shape, dtype=dtype)], (out, None, x, rows * d_model, *random_numbers)

    scaled, factors, shift = place(random(*shape, dtype=dtype)), place(random(rows)), place(random(d_model, seed=1))
    yield "scale_rows", [scaled], (scaled, factors, shift, *shape)

    weight, bias = (place(random(d_model, seed=seed)) for seed in (2, 3))
    out, mean, rstd = new(*shape, dtype=dtype), new(rows), new(rows)
    yield "layer_norm", [out, mean, rstd], (out, mean, rstd, x, weight, bias, *shape, 1e-5)
    grads = [new(*shape, dtype=dtype), new(d_model), new(d_model)]
    yield "layer_norm_backward", grads, (*grads, y, x, mean, rstd, weight, *shape)

    ids = place(torch.randint(0, vocabulary, (rows,), generator=torch.Generator().manual_seed(5)))
    table, positions = place(random(vocabulary, d_model)), place(random(rows, d_model, seed=1))
    for numbers in (random_numbers, (0, 0, 1.0)):
        out, places = new(*shape, dtype=dtype), place(torch.arange(rows))
        yield "embed", [out], (out, table, positions, ids, places, *shape, 1.5, *numbers)
        grad = place(torch.zeros(vocabulary, d_model))
        yield "embed_backward", [grad], (grad, x, ids, *shape, 1.5, *numbers)

    some, others = sentences_of([size, 1, 5]), sentences_of([3, size + 1, 2])
    width = heads * head_size
    for queries, keys, causal in ((some, some, 0), (some, some, 1), (some, others, 0)):
        parts = 3 if queries is keys else 1
        projected = place(random(len(queries.positions), parts, heads, head_size, dtype=dtype))
        memory = place(random(len(keys.positions), 2, heads, head_size, seed=1, dtype=dtype))
        grad_projected, grad_memory = new(*projected.shape, dtype=dtype), new(*memory.shape, dtype=dtype)
        inputs, grads = (
            one.unbind(1) if parts == 3 else (one[:, 0], *other.unbind(1))
            for one, other in ((projected, memory), (grad_projected, grad_memory))
        )
        starts = place(queries.starts), place(keys.starts)
        strides = parts * width, (3 if parts == 3 else 2) * width
        out = new(len(queries.positions), heads, head_size, dtype=dtype)
        statistics = new(len(queries.positions), heads, 2)
        layout, rest = (queries.count, heads, head_size, *strides), (causal, keys.longest, *random_numbers)
        yield "attention", [out, statistics], (out, statistics, *inputs, *starts, *layout, *rest)
        above = place(random(*out.shape, seed=3, dtype=dtype))
        outputs = [grad_projected] if parts == 3 else [grad_projected, grad_memory]
        arguments = *grads, above, out, statistics, *inputs, *starts, *layout, *strides, *rest
        yield "attention_backward", outputs, arguments

    for differentiate in (0, 1):
        logits, targets = place(random(rows, vocabulary, dtype=dtype)), place(torch.arange(rows))
        nll, uniform, inverse = new(rows), new(rows), new(rows)
        arguments = logits, nll, uniform, inverse, targets, rows, vocabulary, 0.1, differentiate
        yield "cross_entropy", [logits, nll, uniform, inverse], arguments

        a, b = (place(random(rows, vocabulary, seed=seed, dtype=dtype)) for seed in (0, 1))
        nll, uniform, divergence, scratch = new(rows), new(rows), new(rows), new(2 * vocabulary)
        arguments = a, b, nll, uniform, divergence, targets, scratch, rows, vocabulary, 0.1, 5.0, differentiate
        yield "cross_entropy_pair", [a, b, nll, uniform, divergence], arguments


def results_of_every_call(dtype, place, size):
    results = []
    with seeded(3):
        for name, outputs, arguments in every_call(dtype, place, size):
            native.call(name, dtype, *arguments)
            results += [(name, output.clone()) for output in outputs]
    return results


@built
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 4, 7, 16, 21])
def test_nothing_beyond_the_ends_is_written_or_read(dtype, size):
    """All memory around inputs and outputs is NaN, and stays so; no result is."""
    margin, buffers = 264, []  # bytes; no multiple of a vector's size

    def surrounded(tensor):
        count = tensor.numel() * tensor.element_size()
        buffer = torch.full((margin + count + margin,), 0xFF, dtype=torch.uint8)
        buffers.append((buffer, count))
        within = buffer[margin : margin + count].view(tensor.dtype).view(tensor.shape)
        return within.copy_(tensor)

    found = results_of_every_call(dtype, surrounded, size)
    for buffer, count in buffers:
        assert (buffer[:margin] == 0xFF).all() and (buffer[margin + count :] == 0xFF).all()
    assert all(output.isfinite().all() for _, output in found)
    # Nor does it matter where in memory numbers stand.
    for (name, output), (_, alone) in zip(found, results_of_every_call(dtype, torch.clone, size), strict=True):
        assert torch.equal(output, alone), name


@built
def test_the_calls_above_are_of_all_kernels():
    assert {name for name, _, _ in every_call(torch.float32, torch.clone, 4)} == set(native._SIGNATURES)


@built
@pytest.mark.parametrize("dtype", DTYPES)
def test_calls_from_several_threads_at_once_give_the_same_bits(dtype):
    size, threads, rounds = 100, 3, 4
    expected = results_of_every_call(dtype, torch.clone, size)
    start = Barrier(threads)

    def work(_):
        start.wait()
        return [results_of_every_call(dtype, torch.clone, size) for _ in range(rounds)]

    with ThreadPoolExecutor(threads) as pool:
        for found in pool.map(work, range(threads)):
            for results in found:
                for (name, output), (_, alone) in zip(results, expected, strict=True):
                    assert torch.equal(output, alone), name


@built
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_rows_are_no_work(dtype):
    nothing, ids = torch.empty(0, 5, dtype=dtype), torch.empty(0, dtype=torch.int64)
    weight, bias = random(5).requires_grad_(), random(5, seed=1).requires_grad_()
    table = random(7, 5).requires_grad_()
    for result in (
        layer_norm(nothing, weight, bias, 1e-5),
        linear(nothing, weight[None], bias[:1]),
        embed(ids, table, random(3, 5), ids, 1.0, 0.1, dtype),
        dropout(nothing.requires_grad_(), 0.5, True),
    ):
        assert result.shape[0] == 0
        result.sum().backward()
    for tensor in (weight, bias, table):
        assert not tensor.grad.any()


@built
@pytest.mark.parametrize(
    ("name", "pointers", "strides", "length"), [("attention", 5, 2, 2**44), ("attention_backward", 9, 4, 2**27)]
)
def test_where_there_is_no_memory_python_says_so(name, pointers, strides, length):
    """For a sentence that no machine has room for; nothing of it is read."""
    starts, x = torch.tensor([0, length]), torch.zeros(1)
    with pytest.raises(MemoryError):
        native.call(
            name, torch.float32, *(x,) * pointers, starts, starts, 1, 1, 8, *(8,) * strides, 0, length, 0, 0, 1.0
        )


# What the kernels are not for


def normed(x):
    # Weights are float32, but for types that torch does not mix with it.
    dtype = torch.float32 if x.dtype in DTYPES else x.dtype
    return layer_norm(x, random(8, seed=1).to(dtype), random(8, seed=2).to(dtype), 1e-5)


def attended(x):
    sentences = sentences_of([3, 2, 4])
    return attend_packed(x, None, Packed(sentences, sentences, causal=True))


def attended_across(x):
    memory = random(7, 2, 2, 4, seed=4, dtype=x.dtype)
    return attend_packed(x, memory, Packed(sentences_of([3, 2, 4]), sentences_of([1, 5, 1])))


def paired_loss(x):
    others = random(9, 8, seed=4, dtype=x.dtype)
    return paired_cross_entropy(x, others, random(11, 8, seed=3), torch.arange(9), 0.1, 2.0)[0]


# What activations each takes, and the operation.
OPERATIONS = {
    "linear": ((9, 8), lambda x: linear(x, random(6, 8, seed=3), random(6, seed=4))),
    "layer_norm": ((9, 8), normed),
    "dropout": ((9, 8), lambda x: dropout(x, 0.5, True)),
    "joined": ((9, 8), lambda x: dropout(x, 0.5, True, residual=random(9, 8, seed=4, dtype=x.dtype))),
    "attended": ((9, 3, 2, 4), attended),
    "attended_across": ((9, 1, 2, 4), attended_across),
    "loss": ((9, 8), lambda x: smoothed_cross_entropy(x, random(11, 8, seed=3), torch.arange(9), 0.1)[0]),
    "paired_loss": ((9, 8), paired_loss),
}
of_all_operations = pytest.mark.parametrize(("shape", "operation"), OPERATIONS.values(), ids=OPERATIONS)


def with_gradient(operation, x, above=None):
    """The result and the gradient by x."""
    x = x.detach().requires_grad_()
    with seeded(5):
        result = operation(x)
    (gradient,) = torch.autograd.grad(result, x, torch.ones_like(result) if above is None else above)
    return result.detach(), gradient


def scattered(tensor):
    """The same numbers in an order in memory that is not theirs."""
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


@built
@of_all_operations
@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_in_order_are_for_the_kernels(calls, shape, operation, dtype):
    """Or the tests below would show nothing."""
    with_gradient(operation, random(*shape, dtype=dtype))
    assert calls


@of_all_operations
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_types_are_left_to_torch(calls, shape, operation, dtype):
    x = random(*shape, dtype=dtype)
    result, gradient = with_gradient(operation, x)
    assert calls == []
    assert gradient.dtype == dtype and result.isfinite().all()
    with native.disabled():
        assert all(map(torch.equal, with_gradient(operation, x), (result, gradient)))


@of_all_operations
@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_out_of_order_are_left_to_torch(calls, shape, operation, dtype):
    x = random(*shape, dtype=dtype)
    found = with_gradient(operation, scattered(x))
    # A gradient from above is in order, whatever the activations are.
    assert [name for name in calls if not name.endswith("_backward")] == []
    with native.disabled():
        expected = with_gradient(operation, x)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_residual_out_of_order_is_added_all_the_same(calls):
    x, residual = random(9, 8), random(9, 8, seed=4)
    with seeded(5):
        joined = dropout(x, 0.5, True, residual=scattered(residual))
    assert calls == []
    with native.disabled(), seeded(5):
        assert torch.equal(joined, residual + dropout(x, 0.5, True))


def embedded(x):
    ids, places = torch.tensor([3, 1, 3, 0]), torch.tensor([0, 1, 2, 0])
    return embed(ids, x.float(), random(3, 8, seed=1), places, 2.0, 0.3, x.dtype)


# A loss is one number, which has no order.
WITH_ROWS = {**{name: of for name, of in OPERATIONS.items() if "loss" not in name}, "embedded": ((6, 8), embedded)}


@built
@pytest.mark.parametrize(("shape", "operation"), WITH_ROWS.values(), ids=WITH_ROWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_from_above_may_lie_as_they_like(shape, operation, dtype):
    x = random(*shape, dtype=dtype)
    result = operation(x)
    above = random(*result.shape, seed=6, dtype=result.dtype)
    for lying in (scattered(above), above[:1, :1].expand(above.shape)):
        assert not lying.is_contiguous()
        assert torch.equal(with_gradient(operation, x, lying)[1], with_gradient(operation, x, lying.contiguous())[1])


@pytest.mark.parametrize(
    "change",
    [
        {"ids": torch.tensor([3, 1, 3, 0], dtype=torch.int32)},
        {"ids": torch.tensor([3, 9, 1, 9, 3, 9, 0, 9])[::2]},
        {"places": torch.tensor([0, 9, 1, 9, 2, 9, 0, 9])[::2]},
        {"places": torch.tensor([0, 1, 2, 0], dtype=torch.int32)},
        {"table": scattered(random(6, 8))},
        {"positions": scattered(random(3, 8, seed=1))},
        {"table": random(6, 8, dtype=torch.float64)},
        {"dtype": torch.float64},
        {"dtype": torch.float16},
    ],
    ids=["int32 ids", "ids with gaps", "places with gaps", "int32 places", "table out of order",
         "positions out of order", "float64 table", "to float64", "to float16"],
)  # fmt: skip
def test_embeddings_of_any_type_and_order_are_right(calls, change):
    given_ = {
        "ids": torch.tensor([3, 1, 3, 0]),
        "table": random(6, 8),
        "positions": random(3, 8, seed=1),
        "places": torch.tensor([0, 1, 2, 0]),
        "dtype": torch.float32,
        **change,
    }
    table = given_["table"].requires_grad_()
    ids, places, positions, dtype = (given_[name] for name in ("ids", "places", "positions", "dtype"))
    embedded = embed(ids, table, positions, places, 2.0, 0.0, dtype)
    assert embedded.dtype == dtype
    expected = F.embedding(ids.long(), table) * 2.0 + positions[places.long()]
    torch.testing.assert_close(embedded, expected.to(dtype))
    above = random(*embedded.shape, seed=5, dtype=dtype)
    (gradient,) = torch.autograd.grad(embedded, table, above)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, table, above.to(expected.dtype))[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_targets_with_gaps_between_them_are_right(calls, dtype):
    states, weight = random(5, 8, dtype=dtype), random(11, 8, seed=3)
    targets = torch.tensor([4, 10, 2, 10, 0, 10, 9, 10, 4, 10])[::2]
    found = smoothed_cross_entropy(states, weight, targets, 0.1)
    torch.testing.assert_close(found, smoothed_cross_entropy(states, weight, targets.clone(), 0.1), rtol=1e-3, atol=0)
    pair = states, random(5, 8, seed=1, dtype=dtype), weight
    expected = paired_cross_entropy(*pair, targets.clone(), 0.1, 2.0)
    torch.testing.assert_close(paired_cross_entropy(*pair, targets, 0.1, 2.0), expected, rtol=1e-3, atol=0)


@built
@pytest.mark.parametrize("bad", [-1, 6, 2**40, -(2**62)])
@pytest.mark.parametrize("place", [0, 3])
def test_ids_that_are_of_no_row_are_refused_before_memory_is_read(calls, bad, place):
    """A kernel would read or write what is not the table's."""
    ids, places = torch.tensor([3, 1, 5, 0]), torch.tensor([0, 1, 5, 0])
    ids[place] = bad
    table, positions = random(6, 8).requires_grad_(), random(6, 8, seed=1)
    for pair in ((ids, places), (places, ids)):
        with pytest.raises(IndexError):
            embed(pair[0], table, positions, pair[1], 2.0, 0.1, torch.float32)
    states, others, weight = random(4, 8), random(4, 8, seed=1), random(6, 8, seed=2)
    with pytest.raises(IndexError):
        smoothed_cross_entropy(states, weight, ids, 0.1)
    with pytest.raises(IndexError):
        paired_cross_entropy(states, others, weight, ids, 0.1, 1.0)
    assert calls == []


@pytest.mark.parametrize("parameter", ["weight", "bias"])
def test_layer_normalisation_takes_parameters_that_lie_apart(calls, parameter):
    x = random(9, 8)
    right = {"weight": random(8, seed=1), "bias": random(8, seed=2)}
    expected = F.layer_norm(x, (8,), *right.values(), 1e-5)
    gaps = torch.stack([right[parameter], random(8, seed=3)], dim=1)[:, 0]
    found = layer_norm(x, **{**right, parameter: gaps}, epsilon=1e-5)
    torch.testing.assert_close(found, expected)


# Switching them off, and finding them


@of_all_operations
def test_switched_off_they_are_not_used(calls, shape, operation):
    with native.disabled():
        assert not native.available()
        with_gradient(operation, random(*shape))
    assert calls == []


@built
def test_they_are_switched_off_within_a_block_and_in_its_thread_alone():
    with ThreadPoolExecutor(1) as pool:
        with native.disabled():
            with native.disabled():
                assert not native.available()
            assert not native.available()
            assert pool.submit(native.available).result()
        assert native.available()
        with pytest.raises(KeyError), native.disabled():
            raise KeyError
        assert native.available()


@pytest.mark.parametrize("value", ["off", "OFF", "0", "no"])
def test_the_environment_switches_them_off(monkeypatch, fresh, value):
    monkeypatch.setenv("SEQ2SEQ_KERNELS", value)
    assert not native.available()


@pytest.mark.parametrize("value", ["avx", "none", "true"])
def test_a_value_that_is_unknown_is_an_error_with_those_that_are_known(monkeypatch, fresh, value):
    monkeypatch.setenv("SEQ2SEQ_KERNELS", value)
    with pytest.raises(OptionError, match=rf"SEQ2SEQ_KERNELS = '{value}'.*generic, avx2, avx512, on, off"):
        native.available()


@built
@pytest.mark.parametrize("value", ["", "on", "1"])
def test_on_is_as_if_nothing_was_set(monkeypatch, fresh, value):
    monkeypatch.setenv("SEQ2SEQ_KERNELS", value)
    assert native.available()
    assert native.generation() == generations()[-1], "the newest that runs here"


@built
def test_the_environment_chooses_among_generations_that_the_processor_runs(monkeypatch, fresh):
    runs = generations()
    assert runs[0] == "generic"
    for wanted in ("generic", "avx2", "avx512", "AVX2"):
        monkeypatch.setenv("SEQ2SEQ_KERNELS", wanted)
        native._chosen.cache_clear()
        expected = wanted.lower() if wanted.lower() in runs else runs[-1]
        assert native.generation() == expected
        with native.disabled():
            assert native.generation() is None


@built
@pytest.mark.parametrize("broken", ["", "stale", "junk"])
def test_a_generation_that_was_not_built_gives_way_to_the_one_before(monkeypatch, tmp_path, fresh, broken):
    """generic is there; what the processor could run as well is not, or is of another version, or is no library."""
    beside, suffix = Path(native.__file__), EXTENSION_SUFFIXES[0]
    shutil.copy(beside.with_name(f"_kernels{suffix}"), tmp_path)
    for name in ("avx2", "avx512"):
        if broken == "junk":
            (tmp_path / f"_kernels_{name}{suffix}").write_bytes(b"for another machine")
        elif broken == "stale":  # what has none of the functions
            shutil.copy(torch._C.__file__, tmp_path / f"_kernels_{name}{suffix}")
    monkeypatch.delenv("SEQ2SEQ_KERNELS", raising=False)
    monkeypatch.setattr(native, "__file__", str(tmp_path / "__init__.py"))
    assert native.generation() == "generic"


@built
@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="there is one generation only")
@pytest.mark.skipif("ATEN_CPU_CAPABILITY" in os.environ, reason="torch is told to use less")
def test_what_the_processor_has_is_used():
    """Where torch has AVX2 or AVX-512 kernels for this processor, so has this project."""
    capability = torch.backends.cpu.get_cpu_capability()
    wanted = "avx512" if "AVX512" in capability else "avx2" if "AVX2" in capability else "generic"
    assert generations()[-1] == wanted


@pytest.fixture
def fresh():
    """As if nothing had asked for the library yet."""
    native._chosen.cache_clear()
    yield
    native._chosen.cache_clear()


def test_a_process_started_with_them_off_computes_the_same_without_them():
    code = """
import torch
from seq2seq.model import native
from seq2seq.model.functional import linear
print(native.available(), linear(torch.ones(2, 3), torch.ones(1, 3, requires_grad=True), torch.ones(1)).tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SEQ2SEQ_KERNELS": "off"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stdout.strip() == "False [[4.0], [4.0]]"


def test_what_is_no_library_or_one_of_other_sources_is_passed_over(monkeypatch, tmp_path, fresh):
    beside = Path(native.__file__)
    libraries = [path for suffix in EXTENSION_SUFFIXES if (path := beside.with_name("_kernels" + suffix)).exists()]
    monkeypatch.delenv("SEQ2SEQ_KERNELS", raising=False)
    monkeypatch.setattr(native, "__file__", str(tmp_path / "__init__.py"))
    assert not native.available(), "there is none"
    (tmp_path / f"_kernels{EXTENSION_SUFFIXES[0]}").write_bytes(b"for another machine")
    native._chosen.cache_clear()
    assert not native.available()
    if libraries:
        monkeypatch.setattr(native, "__file__", str(beside))
        for change, there in (1, False), (0, True):
            built_from = native.sources_hash()
            assert built_from is not None
            with monkeypatch.context() as patch:
                patch.setattr(native, "sources_hash", lambda found=built_from + change: found)
                native._chosen.cache_clear()
                assert native.available() == there
                assert native.are_out_of_date() != there
