import math
import threading

import pytest
import torch

from seq2seq.model import positional
from seq2seq.model.positional import LearnedPositions, SinusoidalPositions, sinusoids


@pytest.mark.parametrize("d_model", [2, 16, 512])
def test_the_table_is_one_permutation_of_the_papers(d_model):
    table = sinusoids(70, d_model)
    assert table.shape == (70, d_model)
    assert table.dtype == torch.float32
    # PE(pos, 2i) = sin(pos / 10000^(2i/D)) and PE(pos, 2i+1) = cos(pos / 10000^(2i/D)), section 3.5.
    paper = torch.zeros(70, d_model)
    for position in range(70):
        for i in range(d_model // 2):
            angle = position / 10_000 ** (2 * i / d_model)
            paper[position, 2 * i] = math.sin(angle)
            paper[position, 2 * i + 1] = math.cos(angle)
    permutation = [2 * i for i in range(d_model // 2)] + [2 * i + 1 for i in range(d_model // 2)]
    assert sorted(permutation) == list(range(d_model))
    torch.testing.assert_close(table, paper[:, permutation], atol=1e-6, rtol=0.0)


def test_an_odd_size_has_no_sinusoids():
    with pytest.raises(ValueError, match="d_model = 7"):
        sinusoids(3, 7)


def test_sinusoids_grow_with_the_sentence():
    positions = SinusoidalPositions(16)
    torch.testing.assert_close(positions(250, 500), sinusoids(750, 16)[250:])
    torch.testing.assert_close(positions(0, 10), sinusoids(10, 16))
    torch.testing.assert_close(positions(2000, 1), sinusoids(2001, 16)[2000:])


def test_sinusoids_are_neither_trained_nor_saved():
    positions = SinusoidalPositions(16)
    positions(0, 400)
    assert list(positions.parameters()) == []
    assert positions.state_dict() == {}


def test_a_table_that_grew_while_decoding_serves_training():
    positions = SinusoidalPositions(16)
    with torch.inference_mode():
        positions(0, 400)
    assert not positions.table.is_inference()
    weight = torch.ones(400, 16, requires_grad=True)
    (positions(0, 400) * weight).sum().backward()
    assert torch.equal(weight.grad, positions.table[:400])


def test_a_grown_table_keeps_the_dtype_of_the_model():
    positions = SinusoidalPositions(16).to(torch.bfloat16)
    assert positions(0, 400).dtype == torch.bfloat16


def test_learned_positions_end():
    positions = LearnedPositions(4, 10)
    torch.nn.init.normal_(positions.weight)
    assert torch.equal(positions(7, 3), positions.weight[7:10])
    with pytest.raises(ValueError, match=r"position 10 is beyond model\.max_positions = 10"):
        positions(7, 4)


def test_threads_that_extend_the_table_at_once_get_all_that_they_asked_for(monkeypatch):
    """One extends it to 600 positions; before it has taken them, another puts its own, shorter table in place."""
    asked, extended = threading.Event(), threading.Event()
    original = positional.sinusoids

    def slow(num_positions, d_model):
        if threading.current_thread() is other:
            asked.set()
            extended.wait(1)
        return original(num_positions, d_model)

    class Interleaved(SinusoidalPositions):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "table" and len(value) >= 600:
                extended.set()
                other.join(1)

    positions = Interleaved(8)
    monkeypatch.setattr(positional, "sinusoids", slow)
    other = threading.Thread(target=positions, args=(0, 300))
    other.start()
    assert asked.wait(60)
    found = positions(0, 600)
    other.join()
    assert torch.equal(found, original(600, 8))
