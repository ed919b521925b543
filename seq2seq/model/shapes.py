"""The names and shapes of a Transformer's parameters, from its configuration alone.

To find out whether a file of weights belongs to a configuration, and what a model would take, without making one: the
configuration may ask for a hundred gigabytes. A test compares it with the model itself.
"""

from __future__ import annotations

from seq2seq.config import ModelConfig

Shapes = dict[str, tuple[int, ...]]


def parameter_shapes(
    config: ModelConfig, source_vocab_size: int, target_vocab_size: int, *, shared: bool
) -> dict[str, tuple[int, ...]]:
    """The arguments are those of `Transformer`; the keys and shapes those of its state_dict."""
    d_model = config.d_model
    tied = config.tied_embeddings
    if tied == "auto":
        tied = "all" if shared else "target"
    shapes: Shapes = {"target_embedding": (target_vocab_size, d_model)}
    if tied != "all":
        shapes["_source_embedding"] = (source_vocab_size, d_model)
    if tied == "none":
        shapes["_output_weight"] = (target_vocab_size, d_model)
    if config.positions == "learned":
        shapes["source_positions.weight"] = shapes["target_positions.weight"] = (config.max_positions, d_model)
    feed_forward = _sublayer("feed_forward", d_model, inner=config.d_ff, outer=config.d_ff)
    inside = config.num_heads * config.key_size
    self_attention, cross_attention = (
        _sublayer(name, d_model, inner=3 * inside, outer=inside) for name in ("self_attention", "cross_attention")
    )
    for stack, count, parts in (
        ("encoder", config.num_encoder_layers, (self_attention, feed_forward)),
        ("decoder", config.num_decoder_layers, (self_attention, cross_attention, feed_forward)),
    ):
        for layer in range(count):
            for part in parts:
                shapes |= {f"{stack}_layers.{layer}.{name}": shape for name, shape in part.items()}
        if config.norm == "pre":
            shapes |= _weight_and_bias(f"{stack}_norm", d_model)
    return shapes


def _sublayer(name: str, d_model: int, *, inner: int, outer: int) -> Shapes:
    """Two projections, D to `inner` and `outer` to D, and the layer normalisation of the residual (section 3.1)."""
    return {
        f"{name}.in_weight": (inner, d_model),
        f"{name}.in_bias": (inner,),
        f"{name}.out_weight": (d_model, outer),
        f"{name}.out_bias": (d_model,),
        **_weight_and_bias(f"{name}_residual.norm", d_model),
    }


def _weight_and_bias(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}
