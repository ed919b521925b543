"""Configuration: frozen, typed, every field with its default. The presets are the paper's models and smaller ones.

Five sections, `[data] [tokenizer] [model] [training] [decoding]`, are checked field by field and against each other;
what is wrong is told with the field, the value and the remedy. How a configuration is read from a TOML file is in
`recipe.py`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from seq2seq.errors import OptionError


class ConfigError(OptionError):
    """The configuration is wrong. The message names the field, the value and the remedy."""


class Section(BaseModel):
    """Base of every section: immutable, strict about names and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True, allow_inf_nan=False)


class Download(Section):
    """A file that is fetched on first use and checked.

    path: where it is kept, relative to the configuration's folder. url: its public address (http or https).
    sha256: the 64 hexadecimal digits of its SHA-256 sum.
    """

    path: str = Field(min_length=1)
    url: str = Field(pattern=r"^https?://")
    sha256: str = Field(pattern=r"^[0-9a-fA-F]{64}$")


DATA_PATHS = (
    "train_source", "train_target", "valid_source", "valid_target", "test_source", "test_target",
    "train_pairs", "valid_pairs", "test_pairs",
)  # fmt: skip


class DataConfig(Section):
    """Where the sentence pairs come from and which of them are kept.

    A corpus is given in one of three ways: line-aligned files (`train_source` + `train_target`), one file of pairs
    (`train_pairs`, `.tsv` or `.jsonl`), or a dataset of the Hugging Face hub (`dataset`). Any file may be gzipped.
    """

    source_language: str = ""
    target_language: str = ""
    train_source: str = ""
    train_target: str = ""
    valid_source: str = ""
    valid_target: str = ""
    test_source: str = ""
    test_target: str = ""
    # One file with both sides. TSV columns are numbered from 1, or named by a header; JSONL fields are named.
    train_pairs: str = ""
    valid_pairs: str = ""
    test_pairs: str = ""
    source_column: str = ""
    target_column: str = ""
    # Of .tsv files: whether the first line has the names of the columns; whether fields may stand in double quotes, as
    # spreadsheets write those with quotes, tabs or line breaks in them.
    tsv_header: bool = False
    tsv_quotes: bool = False
    # A dataset on the Hugging Face hub, with columns as above or a `translation` feature keyed by language.
    dataset: str = ""
    dataset_config: str = ""
    train_split: str = "train"
    valid_split: str = "validation"
    test_split: str = ""
    # Files fetched on first use.
    downloads: tuple[Download, ...] = ()
    # Filters of the training pairs. Every pair that they drop is counted and reported.
    max_source_length: int = Field(default=256, ge=1, le=2**14)  # pieces, without end-of-sentence
    max_target_length: int = Field(default=256, ge=1, le=2**14)
    max_length_ratio: float = Field(default=9.0, ge=1.0)  # longer side / shorter side, in pieces
    ratio_free_length: int = Field(default=10, ge=0)  # pairs whose longer side has at most so many pieces pass
    drop_duplicates: bool = False
    # sacreBLEU's tokenisation for validation and test BLEU: "none" for text that is tokenised already.
    bleu_tokenize: Literal[
        "13a", "none", "intl", "char", "zh", "ja-mecab", "ko-mecab", "flores101", "flores200"
    ] = "13a"  # fmt: skip

    @field_validator("downloads", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_kind_of_corpus(self) -> DataConfig:
        for split in ("train", "valid", "test"):
            source, target = getattr(self, f"{split}_source"), getattr(self, f"{split}_target")
            pairs = getattr(self, f"{split}_pairs")
            if bool(source) != bool(target):
                missing = "target" if source else "source"
                raise ValueError(f"data.{split}_{missing} is missing: give both sides, or data.{split}_pairs")
            if pairs and source:
                raise ValueError(f"data.{split}_pairs and data.{split}_source are both given: keep one of them")
        if self.dataset and (self.train_source or self.train_pairs):
            raise ValueError("data.dataset and training files are both given: keep one of them")
        return self


class TokenizerConfig(Section):
    """SentencePiece. With `shared`, one model serves both sides; otherwise each side has its own."""

    algorithm: Literal["bpe", "unigram"] = "bpe"
    vocab_size: int = Field(default=8000, ge=16, le=1_000_000)  # a ceiling: a small corpus may give fewer pieces
    shared: bool = True
    character_coverage: float = Field(default=1.0, ge=0.98, le=1.0)  # SentencePiece takes no less
    normalization: Literal["identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf"] = "identity"
    byte_fallback: bool = False
    # Learn from a random sample of at most so many lines; SentencePiece takes no fewer than 101.
    max_sentences: int = Field(default=1_000_000, ge=101)
    # Subword regularisation: in every epoch of training each sentence is segmented anew, at random; 0: always into the
    # same pieces. For bpe the probability of leaving out a merge at a step (BPE-dropout, Provilkov et al. 2020, arXiv
    # 1910.13267, which has 0.1); 1 leaves single characters. For unigram the exponent alpha of the segmentations'
    # probabilities (Kudo 2018, arXiv 1804.10959, which has 0.1 to 0.5); the smaller, the more random. Sentences become
    # longer: on Multi30k by a fifth for bpe and 0.1, twice as long for unigram and 0.1.
    sample_source: float = Field(default=0.0, ge=0.0, le=1.0)
    sample_target: float = Field(default=0.0, ge=0.0, le=1.0)
    # Existing SentencePiece models to use instead of learning one (`source_model` alone serves both sides).
    source_model: str = ""
    target_model: str = ""

    @model_validator(mode="after")
    def _models(self) -> TokenizerConfig:
        if self.target_model and not self.source_model:
            raise ValueError("tokenizer.target_model is given without tokenizer.source_model: give both")
        if self.target_model and self.shared:
            raise ValueError("tokenizer.target_model is given but tokenizer.shared is true: set tokenizer.shared=false")
        if self.source_model and not self.shared and not self.target_model:
            raise ValueError("tokenizer.shared is false but tokenizer.target_model is missing: give both models")
        return self

    @property
    def samples(self) -> bool:
        """Whether training sees other pieces in every epoch."""
        return self.sample_source > 0.0 or self.sample_target > 0.0


class ModelConfig(Section):
    """The network of Vaswani et al. 2017, sections 3.1 to 3.5. The defaults are the paper's base model.

    The upper bounds are far beyond any model of this kind: a configuration may be a stranger's.
    """

    d_model: int = Field(default=512, ge=2, le=2**16)
    num_heads: int = Field(default=8, ge=1, le=2**16)
    head_size: int | None = Field(default=None, ge=1, le=2**16)  # d_k = d_v; d_model / num_heads unless given
    d_ff: int = Field(default=2048, ge=1, le=2**20)
    num_encoder_layers: int = Field(default=6, ge=1, le=1000)
    num_decoder_layers: int = Field(default=6, ge=1, le=1000)
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)  # section 5.4: sub-layer outputs and embedding sums
    attention_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)  # on attention weights
    activation_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)  # inside the feed-forward network
    norm: Literal["post", "pre"] = "post"
    # Of the layers' matrices at the start: how many times as large as Xavier's (Glorot and Bengio 2010). Unless given
    # 0.5 for post-norm, which learns far faster from smaller ones, and 1 for pre-norm, which gained nothing from them.
    initial_gain: float | None = Field(default=None, gt=0.0, le=10.0)
    activation: Literal["relu", "gelu"] = "relu"
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    max_positions: int = Field(default=1024, ge=1, le=2**24)  # only for learned positions: the longest input or output
    # Which of source embedding, target embedding and output matrix are one: "all" needs a shared vocabulary,
    # "target" ties target embedding and output, "auto" is "all" where the vocabulary is shared, else "target".
    tied_embeddings: Literal["auto", "all", "target", "none"] = "auto"

    @model_validator(mode="after")
    def _sizes(self) -> ModelConfig:
        if self.head_size is None and self.d_model % self.num_heads:
            raise ValueError(
                f"model.d_model = {self.d_model} is not divisible by model.num_heads = {self.num_heads}: "
                "change one of them or set model.head_size"
            )
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"model.d_model = {self.d_model} is odd: sinusoidal positions need an even number")
        return self

    @property
    def xavier_gain(self) -> float:
        """`initial_gain`, or what it is where it is not given."""
        if self.initial_gain is not None:
            return self.initial_gain
        return 0.5 if self.norm == "post" else 1.0

    @property
    def key_size(self) -> int:
        """K, the size of one head."""
        return self.head_size if self.head_size is not None else self.d_model // self.num_heads


class TrainingConfig(Section):
    """Section 5 of the paper, and when to validate, save and stop.

    Training stops at whichever of `max_steps`, `max_epochs`, `max_minutes` and `patience` comes first. The learning
    rate's horizon, which the cosine and linear schedules need, is `max_steps` where that is set; otherwise it is
    planned once from `max_epochs`, or from `max_minutes` and the speed in the first 15% of them (4% where there is time
    for less than two warm-ups; in the warm-up, if that is shorter), and stored with the run. Steps that were planned
    are trained, though the machine become slower: minutes end a training as such only beside `max_steps`.
    """

    max_steps: int | None = Field(default=None, ge=1)
    max_epochs: int | None = Field(default=None, ge=1)
    max_minutes: float | None = Field(default=None, gt=0)
    # Padded target tokens per update, over all micro-batches.
    batch_tokens: int = Field(default=25_000, ge=1, le=100_000_000)
    accumulate: int = Field(default=1, ge=1)  # micro-batches per update
    label_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    # R-Drop (Liang et al. 2021, arXiv 2106.14448): every batch is predicted twice under different dropout, and the two
    # predictions p and q are drawn together, by r_drop / 4 * (KL(p||q) + KL(q||p)). 0: off. Twice the work a step.
    r_drop: float = Field(default=0.0, ge=0.0)
    schedule: Literal["inverse_sqrt", "cosine", "linear", "constant"] = "inverse_sqrt"
    warmup_steps: int = Field(default=4000, ge=1)
    learning_rate_scale: float = Field(default=1.0, gt=0.0, le=1e6)  # its peak, in (d_model * warmup_steps)^-0.5
    # "muon" has the matrices of layers updated by Muon (see training/muon.py), all else by Adam, both with one learning
    # rate: on Multi30k a step teaches more and takes hardly longer (experiments/LOG.md, "Muon"). The paper has Adam.
    # The two settings of Muon were found at d_model = 128, and are nothing to Adam.
    optimizer: Literal["adam", "muon"] = "adam"
    muon_momentum: float = Field(default=0.95, ge=0.0, lt=1.0)
    muon_scale: float = Field(default=0.4, gt=0.0, le=100.0)  # root mean square of an update, in learning rates
    adam_beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    adam_beta2: float = Field(default=0.98, ge=0.0, lt=1.0)
    adam_epsilon: float = Field(default=1e-9, gt=0.0)
    # Decoupled (Loshchilov and Hutter 2019, arXiv 1711.05101): each step takes learning rate times this off matrices,
    # embeddings included, not off biases and layer normalisations. Muon without it learns a small corpus by heart.
    weight_decay: float = Field(default=0.0, ge=0.0, le=1000.0)
    clip_norm: float = Field(default=0.0, ge=0.0)  # 0: gradients are not clipped
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = Field(default=1, ge=0, lt=2**31)
    # Fine-tuning: a finished run whose weights and vocabulary training begins with; its model must have these sizes.
    init_from: str = ""
    num_threads: int = Field(default=0, ge=0, le=1024)  # 0: as many as there are cores
    # Parts of a batch trained at once on a CPU, sharing its threads; 0: one a thread where each has enough to do.
    workers: int = Field(default=0, ge=0, le=1024)
    log_every: int = Field(default=50, ge=1)
    validate_every: int = Field(default=1000, ge=1)
    save_every: int = Field(default=1000, ge=1)
    validation_beam_size: int = Field(default=1, ge=1, le=1000)
    max_validation_sentences: int = Field(default=3000, ge=1)
    patience: int = Field(default=0, ge=0)  # validations without a better BLEU before stopping; 0: never
    keep_last: int = Field(default=5, ge=1)
    keep_best: int = Field(default=1, ge=1)
    # The final model: the best checkpoint by validation BLEU, or the average of the last / best N of those kept.
    average: Literal["none", "last", "best"] = "last"
    average_checkpoints: int = Field(default=5, ge=1)
    max_skipped_steps: int = Field(default=5, ge=1)  # non-finite steps in a row before training stops
    # Whether the largest batches are computed before the first step, to see that the memory is enough for them.
    preflight: bool = True

    @property
    def micro_batch_tokens(self) -> int:
        """Padded target tokens that go through the network at once."""
        return max(1, self.batch_tokens // self.accumulate)

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        if self.average == "last" and self.average_checkpoints > self.keep_last:
            raise ValueError(
                f"training.average_checkpoints = {self.average_checkpoints} is more than training.keep_last = "
                f"{self.keep_last}: keep at least as many checkpoints as are averaged"
            )
        if self.average == "best" and self.average_checkpoints > self.keep_best:
            raise ValueError(
                f"training.average_checkpoints = {self.average_checkpoints} is more than training.keep_best = "
                f"{self.keep_best}: keep at least as many checkpoints as are averaged"
            )
        return self


class DecodingConfig(Section):
    """Section 6.1 of the paper: beam search with a length penalty, output at most 50 pieces longer than the input."""

    beam_size: int = Field(default=4, ge=1, le=1000)
    length_penalty: float = Field(default=0.6, ge=0.0, le=10.0)  # alpha of Wu et al. 2016, equation 14
    # What log-probabilities are divided by: "wu" ((5 + |y|) / 6)^alpha as in that equation, "power" |y|^alpha.
    length_normalization: Literal["wu", "power"] = "wu"
    max_extra_length: int = Field(default=50, ge=0, le=10_000)
    max_source_length: int = Field(default=1024, ge=1, le=2**14)  # longer inputs are cut, with a warning
    batch_tokens: int = Field(default=8000, ge=1, le=1_000_000)  # padded source tokens times beam size, per batch
    # Whose cross-attention gives word alignments: a decoder layer, from 0, by default the one before the last, and one
    # of its heads, or (-1) the mean of them all (Garg et al. 2019, arXiv 1909.02074).
    alignment_layer: int | None = Field(default=None, ge=0)
    alignment_head: int = Field(default=-1, ge=-1)


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


class Config(Section):
    """A whole configuration. `preset` names the recipe that it started from, for the record."""

    preset: Literal["", "tiny", "quick", "small", "base", "big"] = ""
    data: DataConfig = DataConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    decoding: DecodingConfig = DecodingConfig()

    @model_validator(mode="after")
    def _across_sections(self) -> Config:
        if self.model.tied_embeddings == "all" and not self.tokenizer.shared:
            raise ValueError(
                'model.tied_embeddings = "all" needs a shared vocabulary: set tokenizer.shared=true or '
                'model.tied_embeddings="target"'
            )
        layer, head = self.decoding.alignment_layer, self.decoding.alignment_head
        if layer is not None and layer >= self.model.num_decoder_layers:
            raise ValueError(
                f"decoding.alignment_layer = {layer}: there are {self.model.num_decoder_layers} decoder layers, from 0"
            )
        if head >= self.model.num_heads:
            raise ValueError(
                f"decoding.alignment_head = {head}: there are {self.model.num_heads} heads, from 0; -1 is their mean"
            )
        if self.model.positions == "learned":
            longest = max(self.data.max_source_length, self.data.max_target_length) + 1
            if longest > self.model.max_positions:
                raise ValueError(
                    f"model.max_positions = {self.model.max_positions} is too small for learned positions: sentences "
                    f"of {longest - 1} pieces pass data.max_source_length and data.max_target_length"
                )
        return self
