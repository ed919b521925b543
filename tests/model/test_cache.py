import pytest
import torch

from seq2seq.model.cache import GrowingKeys

CHOICES = [
    {"norm": "post"},
    {"norm": "pre", "activation": "gelu"},
    {"positions": "learned", "max_positions": 64},
    {"num_heads": 3, "head_size": 5},
]


@pytest.mark.parametrize("changes", CHOICES)
def test_steps_with_a_cache_equal_the_whole_without(make_model, make_batch, changes):
    model = make_model(**changes)
    source, target_input = make_batch(1, [7, 3, 5], [40, 40, 40])
    with torch.inference_mode():
        memory, mask = model.encode(source)
        expected = model.decoder_states(target_input, memory, mask)
        cache = model.start_cache(memory, mask)
        for step in range(40):
            assert cache.length == step
            states = model.step_states(target_input[:, step : step + 1], cache)
            torch.testing.assert_close(states[:, 0], expected[:, step], atol=1e-5, rtol=1e-4)
            logits = model.project(states[:, 0])
            torch.testing.assert_close(
                logits, model.decode(target_input[:, : step + 1], memory, mask)[:, -1], atol=1e-5, rtol=1e-4
            )


@pytest.mark.parametrize("pieces", [[1, 1, 1], [5, 3, 30], [17, 17]])
def test_several_pieces_at_once_equal_one_at_a_time(make_model, make_batch, pieces):
    model = make_model()
    source, target_input = make_batch(1, [7, 3], [38, 38])
    with torch.inference_mode():
        memory, mask = model.encode(source)
        expected = model.decoder_states(target_input, memory, mask)
        cache, start = model.start_cache(memory, mask), 0
        for count in pieces:
            states = model.step_states(target_input[:, start : start + count], cache)
            torch.testing.assert_close(states, expected[:, start : start + count], atol=1e-5, rtol=1e-4)
            start += count


def test_hypotheses_share_a_memory_and_may_be_reordered_and_dropped(make_model, make_batch):
    model = make_model()
    source, target_input = make_batch(1, [7, 3, 5], [6] * 6)  # two hypotheses a sentence
    owners = torch.tensor([0, 0, 1, 1, 2, 2])
    with torch.inference_mode():
        memory, mask = model.encode(source)
        cache = model.start_cache(memory, mask)
        model.step_states(target_input[::2, :1], cache)  # all begin alike: one row a sentence
        target_input[1::2, 0] = target_input[::2, 0]
        cache.select_hypotheses(owners)
        assert cache.layers[0].cross_key.shape[0] == 3
        model.step_states(target_input[:, 1:3], cache)
        # Sentence 0, the longest, ends; sentence 1 keeps its second hypothesis twice, sentence 2 swaps.
        rows = torch.tensor([3, 3, 5, 4])
        cache.select_hypotheses(rows)
        cache.select_sentences(torch.tensor([1, 2]))
        assert cache.memory_mask.shape == (2, 1, 1, 5)  # the columns of the longest are gone
        states = model.step_states(target_input[rows, 3:], cache)
        expected = model.decoder_states(target_input[rows], memory[owners[rows]], mask[owners[rows]])
    torch.testing.assert_close(states, expected[:, 3:], atol=1e-5, rtol=1e-4)


def test_dropping_every_sentence_leaves_an_empty_cache(make_model, make_batch):
    model = make_model()
    source, target_input = make_batch(1, [4, 3], [2, 2])
    with torch.inference_mode():
        cache = model.start_cache(*model.encode(source))
        model.step_states(target_input, cache)
        nobody = torch.tensor([], dtype=torch.int64)
        cache.select_hypotheses(nobody)
        cache.select_sentences(nobody)
    assert cache.memory_mask.shape == (0, 1, 1, 0)
    assert cache.layers[0].self_key.buffer.shape[0] == 0


def test_growing_keys_keep_what_was_appended():
    keys, pieces = GrowingKeys(), [torch.randn(2, 3, count, 4) for count in (1, 20, 5, 1, 60)]
    keys.select(torch.tensor([0]))  # nothing to select yet
    for number, new in enumerate(pieces):
        assert torch.equal(keys.append(new), torch.cat(pieces[: number + 1], dim=2))
    keys.select(torch.tensor([1, 0, 1]))
    grown = keys.append(torch.zeros(3, 3, 1, 4))
    assert torch.equal(grown[:, :, :-1], torch.cat(pieces, dim=2)[[1, 0, 1]])
