"""What incremental decoding remembers between steps.

Self-attention keys and values grow by one position a step, one row a hypothesis. Cross-attention keys and values are
computed once a sentence and shared by its hypotheses: the beams of a sentence are queries against one memory.
"""

from __future__ import annotations

from torch import Tensor


class GrowingKeys:
    """Keys or values of one layer's self-attention, [R, H, t, K] inside a buffer that doubles when it is full."""

    def __init__(self) -> None:
        self.buffer: Tensor | None = None
        self.length = 0

    def append(self, new: Tensor) -> Tensor:
        """Adds positions, new [R, H, T, K]; returns all so far, [R, H, t + T, K], a view."""
        end = self.length + new.shape[2]
        if self.buffer is None or end > self.buffer.shape[2]:
            rows, heads, _, size = new.shape
            grown = new.new_empty(rows, heads, max(16, 2 * end), size)
            if self.buffer is not None:
                grown[:, :, : self.length] = self.buffer[:, :, : self.length]
            self.buffer = grown
        self.buffer[:, :, self.length : end] = new
        self.length = end
        return self.buffer[:, :, :end]

    def select(self, rows: Tensor) -> None:
        """Keeps the given rows, in that order; a row may appear several times."""
        if self.buffer is None:
            return
        selected = self.buffer.new_empty(rows.shape[0], *self.buffer.shape[1:])
        selected[:, :, : self.length] = self.buffer[:, :, : self.length].index_select(0, rows)
        self.buffer = selected


class LayerCache:
    """One decoder layer: growing self-attention, fixed cross-attention keys and values [B, H, S, K]."""

    def __init__(self, cross_key: Tensor, cross_value: Tensor) -> None:
        self.self_key, self.self_value = GrowingKeys(), GrowingKeys()
        self.cross_key, self.cross_value = cross_key, cross_value


class DecoderCache:
    """The state of decoding B sentences with R = B * beams hypotheses, `length` pieces in.

    memory_mask: [B, 1, 1, S], True at source pieces.
    """

    def __init__(self, layers: list[LayerCache], memory_mask: Tensor) -> None:
        self.layers = layers
        self.memory_mask = memory_mask

    @property
    def length(self) -> int:
        """Pieces decoded so far."""
        return self.layers[0].self_key.length

    def select_hypotheses(self, rows: Tensor) -> None:
        """Keeps hypotheses `rows` [R'], indices into the R current ones."""
        for layer in self.layers:
            layer.self_key.select(rows)
            layer.self_value.select(rows)

    def select_sentences(self, sentences: Tensor) -> None:
        """Keeps the memories of `sentences` [B'], indices into the B current ones (hypotheses are kept apart)."""
        self.memory_mask = self.memory_mask.index_select(0, sentences)
        # Memories of the longest sentences may be gone: give up the columns that nobody attends to any more.
        seen = self.memory_mask.flatten(1).any(0).nonzero()
        used = int(seen.max()) + 1 if len(seen) else 0
        self.memory_mask = self.memory_mask[..., :used]
        for layer in self.layers:
            layer.cross_key = layer.cross_key.index_select(0, sentences)[:, :, :used].contiguous()
            layer.cross_value = layer.cross_value.index_select(0, sentences)[:, :, :used].contiguous()
