"""The presets: complete recipes that a configuration may begin with. What is not here has its default of config.py."""

from __future__ import annotations

from typing import Any

# The size that serves Multi30k best (Wu et al. 2021, arXiv 2105.14462), in batches of 2,048 tokens and with a lower
# rate than theirs, which together with less dropout gained 2 BLEU in ten minutes (experiments/LOG.md). Of three
# checkpoints the average is taken: in ten minutes five reach too far back, to half an hour it makes no difference.
# Muon gained 1 to 3 more after as many steps, weight decay another 1.
_TINY: dict[str, dict[str, Any]] = {
    "tokenizer": {"vocab_size": 10_000},
    "model": {
        "d_model": 128, "num_heads": 4, "d_ff": 256, "num_encoder_layers": 4, "num_decoder_layers": 4, "dropout": 0.3,
    },
    "training": {
        "max_minutes": 30.0, "batch_tokens": 2048, "optimizer": "muon", "schedule": "cosine", "warmup_steps": 400,
        "learning_rate_scale": 0.566, "weight_decay": 0.3, "validate_every": 500, "save_every": 250,
        "average_checkpoints": 3,
    },
    "decoding": {"length_penalty": 1.8},
}  # fmt: skip
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": _TINY,
    # The same for the impatient: in so few epochs it does not learn by heart, and needs less dropout.
    "quick": {
        **_TINY,
        "model": {**_TINY["model"], "dropout": 0.2},
        "training": {**_TINY["training"], "max_minutes": 10.0},
    },
    # Three times the parameters, for some 100,000 pairs, such as `seq2seq diversify` makes of a small corpus: some 0.8
    # BLEU more on Multi30k's validation set than `tiny`'s size learns of them, and no more from the 29,000 pairs
    # themselves (experiments/LOG.md, "A wider student"). Over three seeds of them that validation set prefers no other
    # length penalty than the paper's beyond chance. The peak rate, 1.8e-3, follows the width as in equation 3.
    "small": {
        **_TINY,
        "model": {**_TINY["model"], "d_model": 256, "d_ff": 512},
        "training": {**_TINY["training"], "max_minutes": 60.0, "batch_tokens": 4096},
        "decoding": {},
    },
    # Table 3, "base": 100,000 steps of 25,000 target tokens; the average of the last 5 checkpoints (section 6.1).
    "base": {
        "tokenizer": {"vocab_size": 37_000},
        "training": {"max_steps": 100_000},
    },
    # Table 3, "big": 300,000 steps, dropout 0.3; the average of the last 20 checkpoints.
    "big": {
        "tokenizer": {"vocab_size": 37_000},
        "model": {"d_model": 1024, "num_heads": 16, "d_ff": 4096, "dropout": 0.3},
        "training": {"max_steps": 300_000, "keep_last": 20, "average_checkpoints": 20},
    },
}  # fmt: skip
