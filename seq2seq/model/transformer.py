"""The encoder-decoder Transformer (Vaswani et al. 2017, Figure 1): embeddings, stacks, output projection.

Shapes: B batch, S source length, T target length, D d_model, V target vocabulary. Ids are int64.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2seq.config import ModelConfig
from seq2seq.model.attention import AttentionWeights, MultiHeadAttention, causal_mask
from seq2seq.model.cache import DecoderCache, LayerCache
from seq2seq.model.dropout import dropout
from seq2seq.model.functional import embed, linear
from seq2seq.model.layers import DecoderLayer, EncoderLayer, FeedForward, LayerNorm
from seq2seq.model.packed import Packed, Sentences
from seq2seq.model.positional import LearnedPositions, SinusoidalPositions

PAD, UNK, BOS, EOS = 0, 1, 2, 3  # special ids, the same in every model and tokenizer


class Transformer(nn.Module):
    """`forward` is `decode(target_input, *encode(source))`.

    `compute_dtype` is the dtype of activations and matrix products; parameters keep their own. float32 unless set.
    """

    compute_dtype: torch.dtype = torch.float32

    def __init__(self, config: ModelConfig, source_vocab_size: int, target_vocab_size: int, *, shared: bool) -> None:
        """shared: source and target have one vocabulary. Weights are drawn from torch's current random state."""
        super().__init__()
        self.config = config
        tied = config.tied_embeddings
        if tied == "auto":
            tied = "all" if shared else "target"
        if tied == "all" and (not shared or source_vocab_size != target_vocab_size):
            raise ValueError("tied_embeddings = 'all' needs one vocabulary for source and target")
        self.source_vocab_size, self.target_vocab_size = source_vocab_size, target_vocab_size
        d_model = config.d_model
        self.target_embedding = nn.Parameter(torch.empty(target_vocab_size, d_model))
        self._source_embedding = None if tied == "all" else nn.Parameter(torch.empty(source_vocab_size, d_model))
        self._output_weight = None if tied != "none" else nn.Parameter(torch.empty(target_vocab_size, d_model))
        self.source_positions = self._positions()
        self.target_positions = self._positions()
        self.encoder_layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_encoder_layers))
        self.decoder_layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_decoder_layers))
        self.encoder_norm = LayerNorm(d_model) if config.norm == "pre" else None
        self.decoder_norm = LayerNorm(d_model) if config.norm == "pre" else None
        self.reset_parameters()

    def _positions(self) -> SinusoidalPositions | LearnedPositions:
        if self.config.positions == "learned":
            return LearnedPositions(self.config.d_model, self.config.max_positions)
        return SinusoidalPositions(self.config.d_model)

    @property
    def source_embedding(self) -> Tensor:
        """[V_source, D]; the target's where the vocabulary is shared and tied (section 3.4)."""
        return self.target_embedding if self._source_embedding is None else self._source_embedding

    @property
    def output_weight(self) -> Tensor:
        """[V, D], the pre-softmax linear transformation; the target embedding where tied (section 3.4)."""
        return self.target_embedding if self._output_weight is None else self._output_weight

    def reset_parameters(self) -> None:
        """Embeddings N(0, 1/D), so that they have unit variance after the scaling by sqrt(D).

        Matrices of layers are Xavier's (uniform, Glorot and Bengio 2010) times `initial_gain`. The paper does not say
        what it had. With post-norm, small ones let a layer begin as little more than its residual connection.
        """
        deviation = self.config.d_model**-0.5
        for weight in (self.target_embedding, self._source_embedding, self._output_weight):
            if weight is not None:
                nn.init.normal_(weight, std=deviation)
        for positions in (self.source_positions, self.target_positions):
            if isinstance(positions, LearnedPositions):
                nn.init.normal_(positions.weight, std=deviation)
        for module in self.modules():
            if isinstance(module, LayerNorm):
                module.reset_parameters()
            elif isinstance(module, (MultiHeadAttention, FeedForward)):
                module.reset_parameters(self.config.xavier_gain)

    def round_layers(self) -> None:
        """Rounds the layers' matrices to `compute_dtype` for good: nothing is computed otherwise, and no cast is left.

        For inference where every step would cast them anew. The model can't be trained on from there.
        """
        for module in self.modules():
            if isinstance(module, (MultiHeadAttention, FeedForward)):
                module.to(self.compute_dtype)

    def embed(self, ids: Tensor, weight: Tensor, positions: nn.Module, start: int = 0) -> Tensor:
        """sqrt(D) times the embedding (3.4), plus the position (3.5), with dropout (5.4): [B, T] -> [B, T, D]."""
        embedded = F.embedding(ids, weight) * math.sqrt(self.config.d_model)
        summed = embedded + positions(start, ids.shape[1])
        return dropout(summed.to(self.compute_dtype), self.config.dropout, self.training)

    def encode(self, source: Tensor, attention: AttentionWeights | None = None) -> tuple[Tensor, Tensor]:
        """source [B, S] -> memory [B, S, D] and its mask [B, 1, 1, S], False at padding."""
        mask = (source != PAD)[:, None, None, :]
        x = self.embed(source, self.source_embedding, self.source_positions)
        for layer in self.encoder_layers:
            x = layer(x, mask, None if attention is None else attention.encoder)
        if self.encoder_norm is not None:
            x = self.encoder_norm(x)
        return x, mask

    def start_cache(self, memory: Tensor, memory_mask: Tensor) -> DecoderCache:
        """Projects the memory [B, S, D] for every decoder layer, once for all steps and all hypotheses."""
        layers = [LayerCache(*layer.cross_attention.project_memory(memory)) for layer in self._decoder()]
        return DecoderCache(layers, memory_mask)

    def _decoder(self) -> list[DecoderLayer]:
        return cast(list[DecoderLayer], list(self.decoder_layers))  # a ModuleList has no type of its own

    def decoder_states(
        self,
        target_input: Tensor,
        memory: Tensor,
        memory_mask: Tensor,
        attention: AttentionWeights | None = None,
    ) -> Tensor:
        """The decoder's output before the output projection: [B, T], memory [B, S, D] -> [B, T, D].

        Position t sees target_input up to t. Padding needs no mask here: it stands at the end of the target, where no
        real position can see it.
        """
        length = target_input.shape[1]
        self_mask = causal_mask(length, length, target_input.device)
        x = self.embed(target_input, self.target_embedding, self.target_positions)
        for layer in self._decoder():
            projected = layer.cross_attention.project_memory(memory)
            weights = (None, None) if attention is None else (attention.decoder, attention.cross)
            x = layer(x, self_mask, projected, memory_mask, None, *weights)
        if self.decoder_norm is not None:
            x = self.decoder_norm(x)
        return x

    def packed_states(self, source: Tensor, sources: Sentences, target_input: Tensor, targets: Sentences) -> Tensor:
        """What `decoder_states` gives for the tokens of all sentences one after the other, without padding.

        source [Ns] and target_input [Nt] are ids, sources and targets say where sentences begin -> [Nt, D].
        """
        memory = self.packed_memory(source, sources)
        x = self._embed_packed(target_input, self.target_embedding, self.target_positions, targets)
        within, across = Packed(targets, targets, causal=True), Packed(targets, sources)
        for decoder_layer in self._decoder():
            x = decoder_layer.packed(x, within, memory, across)
        if self.decoder_norm is not None:
            x = self.decoder_norm(x)
        return x

    def packed_memory(self, source: Tensor, sources: Sentences) -> Tensor:
        """What `encode` gives, for packed sentences: ids [N] -> [N, D]."""
        x = self._embed_packed(source, self.source_embedding, self.source_positions, sources)
        within = Packed(sources, sources)
        for layer in self.encoder_layers:
            assert isinstance(layer, EncoderLayer)
            x = layer.packed(x, within)
        return x if self.encoder_norm is None else self.encoder_norm(x)

    def _embed_packed(self, ids: Tensor, weight: Tensor, positions: nn.Module, sentences: Sentences) -> Tensor:
        """`embed` for packed sentences: [N] -> [N, D]."""
        drop = self.config.dropout if self.training else 0.0
        table = positions(0, sentences.longest)
        factor = math.sqrt(self.config.d_model)
        return embed(ids, weight, table, sentences.positions, factor, drop, self.compute_dtype)

    def step_states(self, new: Tensor, cache: DecoderCache) -> Tensor:
        """Continues every hypothesis by the pieces `new` [R, T] and returns their states [R, T, D].

        Equal to the last T positions of `decoder_states` over everything so far. R is B times the hypotheses a
        sentence, those of one sentence side by side.
        """
        start, count = cache.length, new.shape[1]
        self_mask = None if count == 1 else causal_mask(count, start + count, new.device)
        x = self.embed(new, self.target_embedding, self.target_positions, start)
        for layer, state in zip(self._decoder(), cache.layers, strict=True):
            x = layer(x, self_mask, (state.cross_key, state.cross_value), cache.memory_mask, state)
        if self.decoder_norm is not None:
            x = self.decoder_norm(x)
        return x

    def project(self, states: Tensor) -> Tensor:
        """Logits over the target vocabulary: [..., D] -> [..., V]."""
        return linear(states, self.output_weight)

    def decode(
        self,
        target_input: Tensor,
        memory: Tensor,
        memory_mask: Tensor,
        attention: AttentionWeights | None = None,
    ) -> Tensor:
        """Teacher-forced logits: target_input `bos pieces` [B, T] -> [B, T, V], entry t predicts piece t + 1."""
        return self.project(self.decoder_states(target_input, memory, memory_mask, attention))

    def forward(self, source: Tensor, target_input: Tensor, attention: AttentionWeights | None = None) -> Tensor:
        """source [B, S], target_input [B, T] -> logits [B, T, V]."""
        memory, memory_mask = self.encode(source, attention=attention)
        return self.decode(target_input, memory, memory_mask, attention)

    def num_parameters(self) -> int:
        """Trained numbers, a tied matrix counted once. base 63.1M and big 214.2M for 37,000 shared pieces.

        Table 3 gives 65M and 213M; counting by the paper's own formulas gives ours but for the biases of attention, a
        thousandth or less.
        """
        return sum(parameter.numel() for parameter in self.parameters())
