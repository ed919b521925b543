"""Configuration: frozen, typed, every field with its default and, below it, what it means.

Five sections, `[data] [tokenizer] [model] [training] [decoding]`, are checked field by field and against each other;
what is wrong is told with the field, the value and the remedy. How a configuration is read from a TOML file is in
`recipe.py`, the presets are in `presets.py`. docs/SETTINGS.md is made of this file by `python -m seq2seq.settings`.
"""

from __future__ import annotations

from typing import Literal

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


LEAST_COVERAGE = 0.98  # of characters: SentencePiece takes no less
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
    """Its name, for people; the key of the source in a `translation` field (JSON lines, datasets)."""
    target_language: str = ""
    """The same of the target."""
    train_source: str = ""
    """Training sentences, one a line, gzipped or not. Paths are relative to the recipe's folder."""
    train_target: str = ""
    """Their translations, line by line."""
    valid_source: str = ""
    """Validation sentences; without them no validation is made."""
    valid_target: str = ""
    """Their translations."""
    test_source: str = ""
    """Test sentences, translated when training ends."""
    test_target: str = ""
    """Their translations."""
    train_pairs: str = ""
    """One file with both sides of the training corpus: `.tsv` or `.jsonl`, or these with `.gz`."""
    valid_pairs: str = ""
    """The same for validation."""
    test_pairs: str = ""
    """The same for the test."""
    source_column: str = ""
    """The source's column: a number from 1, or a name of the header, of a TSV file (1 by default); a field of JSON
    lines or a dataset (`source`)."""
    target_column: str = ""
    """The target's column (by default 2, or `target`)."""
    tsv_header: bool = False
    """Whether the first line of a TSV file has the names of its columns."""
    tsv_quotes: bool = False
    """Whether its fields may stand in double quotes, as spreadsheets write those with quotes, tabs or line breaks."""
    dataset: str = ""
    """A dataset of the Hugging Face hub, or a folder that is one."""
    dataset_config: str = ""
    """Which of its configurations, where it has several."""
    train_split: str = "train"
    """The dataset's split to train on."""
    valid_split: str = "validation"
    """The dataset's split to validate on; empty for none."""
    test_split: str = ""
    """The dataset's split to test on; empty for none."""
    downloads: tuple[Download, ...] = ()
    """Files fetched on first use: `[[data.downloads]]` with `path`, `url` and `sha256`."""
    max_source_length: int = Field(default=256, ge=1, le=2**14)
    """Pieces of a training sentence, without end-of-sentence; pairs with more are dropped and counted."""
    max_target_length: int = Field(default=256, ge=1, le=2**14)
    """The same of its translation."""
    max_length_ratio: float = Field(default=9.0, ge=1.0)
    """Longer side / shorter side, in pieces, beyond which a training pair is dropped and counted."""
    ratio_free_length: int = Field(default=10, ge=0)
    """Pairs whose longer side has at most so many pieces pass, whatever their ratio."""
    drop_duplicates: bool = False
    """Whether of equal training pairs the first alone is kept."""
    bleu_tokenize: Literal[
        "13a", "none", "intl", "char", "zh", "ja-mecab", "ko-mecab", "flores101", "flores200"
    ] = "13a"  # fmt: skip
    """sacreBLEU's tokenisation for validation and test BLEU: `13a` for text with spaces between words, `zh` for
    Chinese, `ja-mecab` for Japanese, `ko-mecab` for Korean (these two need `pip install "sacrebleu[ja,ko]"`), `char`
    for Thai, Lao, Khmer, Burmese; `flores200` for any (it fetches a model); `none` for text that is tokenised already.
    """

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
    """How SentencePiece makes pieces."""
    vocab_size: int = Field(default=8000, ge=16, le=1_000_000)
    """Pieces at most: a small corpus may give fewer."""
    shared: bool = True
    """Whether both sides have one vocabulary."""
    character_coverage: float = Field(default=1.0, ge=LEAST_COVERAGE, le=1.0)
    """The share of characters that get pieces; below 1 the rarest are left out, as for Chinese (SentencePiece takes no
    less than 0.98)."""
    normalization: Literal["identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf"] = "identity"
    """SentencePiece's normalisation of text, on both sides; `_cf` folds case."""
    byte_fallback: bool = False
    """Whether what has no piece is written as bytes, so that no character is lost."""
    max_sentences: int = Field(default=1_000_000, ge=101)
    """Lines to learn from at most; of more, a random sample (SentencePiece takes no fewer than 101)."""
    sample_source: float = Field(default=0.0, ge=0.0, le=1.0)
    """Subword regularisation of the source: in every epoch each sentence is segmented anew, at random; 0: always into
    the same pieces. For bpe the probability of leaving out a merge at a step (BPE-dropout, Provilkov et al. 2020,
    arXiv 1910.13267, which has 0.1); 1 leaves single characters. For unigram the exponent alpha of the segmentations'
    probabilities (Kudo 2018, arXiv 1804.10959, which has 0.1 to 0.5); the smaller, the more random. Sentences become
    longer: on Multi30k by a fifth for bpe and 0.1, twice as long for unigram and 0.1. Of text without spaces short
    runs are segmented apart, where the paper takes a word as a whole: more pieces come of it."""
    sample_target: float = Field(default=0.0, ge=0.0, le=1.0)
    """The same of the target."""
    source_model: str = ""
    """An existing SentencePiece model to use instead of learning one, whatever ids its special pieces have: a copy
    has 0 to 3. Alone it serves both sides."""
    target_model: str = ""
    """Another one for the target, with `shared = false`."""

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
    """Size of a position's vector in all layers."""
    num_heads: int = Field(default=8, ge=1, le=2**16)
    """Attention heads of each layer."""
    head_size: int | None = Field(default=None, ge=1, le=2**16)
    """d_k = d_v, the size of a head's keys and values; `d_model / num_heads` unless given."""
    d_ff: int = Field(default=2048, ge=1, le=2**20)
    """Inner size of the feed-forward networks."""
    num_encoder_layers: int = Field(default=6, ge=1, le=1000)
    """Layers of the encoder."""
    num_decoder_layers: int = Field(default=6, ge=1, le=1000)
    """Layers of the decoder."""
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    """On the outputs of sub-layers and on the sums of embeddings and positions (section 5.4)."""
    attention_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """On attention weights."""
    activation_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Inside the feed-forward networks."""
    norm: Literal["post", "pre"] = "post"
    """Layer normalisation after the residual sum, as in the paper, or before the sub-layer."""
    initial_gain: float | None = Field(default=None, gt=0.0, le=10.0)
    """How many times as large as Xavier's (Glorot and Bengio 2010) the layers' matrices are at the start. Unless given
    0.5 for post-norm, which learns far faster from smaller ones, and 1 for pre-norm, which gained nothing from them."""
    activation: Literal["relu", "gelu"] = "relu"
    """Of the feed-forward networks."""
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    """How positions are encoded (section 3.5)."""
    max_positions: int = Field(default=1024, ge=1, le=2**24)
    """For learned positions alone: the longest input or output."""
    tied_embeddings: Literal["auto", "all", "target", "none"] = "auto"
    """Which of source embedding, target embedding and output matrix are one: `all` needs a shared vocabulary, `target`
    ties target embedding and output, `auto` is `all` where the vocabulary is shared, else `target`."""

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

    @property
    def longest(self) -> int:
        """The most positions of an input or output, end-of-sentence included; sinusoids have no end."""
        return self.max_positions if self.positions == "learned" else 2**31


class TrainingConfig(Section):
    """Section 5 of the paper, and when to validate, save and stop.

    Training stops at whichever of `max_steps`, `max_epochs`, `max_minutes` and `patience` comes first. The learning
    rate's horizon, which the cosine and linear schedules need, is `max_steps` where that is set; otherwise it is
    planned once from `max_epochs`, or from `max_minutes` and the speed in the first 15% of them (4% where there is time
    for less than two warm-ups; in the warm-up, if that is shorter), and stored with the run. Steps that were planned
    are trained, though the machine become slower: minutes end a training as such only beside `max_steps`.
    """

    max_steps: int | None = Field(default=None, ge=1)
    """Updates after which training ends; set, it alone is the schedule's horizon."""
    max_epochs: int | None = Field(default=None, ge=1)
    """Passes over the corpus after which training ends."""
    max_minutes: float | None = Field(default=None, gt=0)
    """Minutes that training is planned to fit into."""
    batch_tokens: int = Field(default=25_000, ge=1, le=100_000_000)
    """Padded target tokens per update, over all micro-batches."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches per update: more of them take less memory."""
    label_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Epsilon of section 5.4, spread over all pieces."""
    r_drop: float = Field(default=0.0, ge=0.0)
    """R-Drop (Liang et al. 2021, arXiv 2106.14448): every batch is predicted twice under different dropout, and the
    two predictions p and q are drawn together, by r_drop / 4 * (KL(p||q) + KL(q||p)). 0: off. Twice the work a step."""
    schedule: Literal["inverse_sqrt", "cosine", "linear", "constant"] = "inverse_sqrt"
    """Of the learning rate after the warm-up: as in equation 3, or falling to 0 at the horizon, or level."""
    warmup_steps: int = Field(default=4000, ge=1)
    """Steps over which the learning rate rises to its peak; half of all planned steps, where that is less."""
    learning_rate_scale: float = Field(default=1.0, gt=0.0, le=1e6)
    """The peak of the learning rate, at the end of the warm-up, in (d_model * warmup_steps)^-0.5, as in equation 3:
    2.5e-3 for presets quick and tiny, 1.8e-3 for small."""
    optimizer: Literal["adam", "muon"] = "adam"
    """`muon` has the matrices of layers updated by Muon (see training/muon.py), all else by Adam, both with one
    learning rate: on Multi30k a step teaches more and takes hardly longer (experiments/LOG.md, "Muon"). The paper has
    Adam."""
    muon_momentum: float = Field(default=0.95, ge=0.0, lt=1.0)
    """Of Muon; found at d_model = 128. Nothing to Adam."""
    muon_scale: float = Field(default=0.4, gt=0.0, le=100.0)
    """Root mean square of an update of Muon, in learning rates; found at d_model = 128. Nothing to Adam."""
    adam_beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Of Adam's mean of gradients (section 5.3)."""
    adam_beta2: float = Field(default=0.98, ge=0.0, lt=1.0)
    """Of Adam's mean of their squares."""
    adam_epsilon: float = Field(default=1e-9, gt=0.0)
    """Added to the root of that."""
    weight_decay: float = Field(default=0.0, ge=0.0, le=1000.0)
    """Decoupled (Loshchilov and Hutter 2019, arXiv 1711.05101): each step takes learning rate times this off matrices,
    embeddings included, not off biases and layer normalisations. Muon without it learns a small corpus by heart."""
    clip_norm: float = Field(default=0.0, ge=0.0)
    """The largest norm of a gradient; longer ones are scaled down. 0: off."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of matrix products; `auto` is bfloat16 where the processor or GPU multiplies it natively. Weights are float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where training computes; `auto` takes a GPU where torch finds one."""
    seed: int = Field(default=1, ge=0, lt=2**31)
    """Of all that is random: weights, order, dropout, the sample that the vocabulary is learned from."""
    init_from: str = ""
    """Fine-tuning: a finished run whose weights and vocabulary training begins with; its model must have these sizes.
    """
    num_threads: int = Field(default=0, ge=0, le=1024)
    """CPU threads; 0: one a core, or OMP_NUM_THREADS where that is fewer."""
    workers: int = Field(default=0, ge=0, le=1024)
    """Parts of a batch trained at once on a CPU, sharing its threads; 0: one a thread where each has enough to do."""
    log_every: int = Field(default=50, ge=1)
    """Steps from one line of metrics.jsonl to the next."""
    validate_every: int = Field(default=1000, ge=1)
    """Steps from one validation to the next; a fine-tuning begins with one."""
    save_every: int = Field(default=1000, ge=1)
    """Steps from one checkpoint to the next."""
    validation_beam_size: int = Field(default=1, ge=1, le=1000)
    """Beam of the validations' BLEU; 1 is greedy search."""
    max_validation_sentences: int = Field(default=3000, ge=1)
    """How many of the first validation sentences are translated for BLEU; the loss is of all."""
    patience: int = Field(default=0, ge=0)
    """Validations in a row with neither a better BLEU nor a lower loss before training ends; 0: never."""
    keep_last: int = Field(default=5, ge=1)
    """Checkpoints that are kept: the newest."""
    keep_best: int = Field(default=1, ge=1)
    """And the best by validation."""
    average: Literal["none", "last", "best"] = "last"
    """The final model: the best checkpoint by validation, or the average of the last or the best of those kept."""
    average_checkpoints: int = Field(default=5, ge=1)
    """How many are averaged."""
    max_skipped_steps: int = Field(default=5, ge=1)
    """Non-finite steps in a row before training stops."""
    preflight: bool = True
    """Whether the largest batches are computed before the first step, to see that the memory is enough for them."""

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
    """Hypotheses kept at each step."""
    length_penalty: float = Field(default=0.6, ge=0.0, le=10.0)
    """Alpha of Wu et al. 2016, equation 14."""
    length_normalization: Literal["wu", "power"] = "wu"
    """What log-probabilities are divided by: `wu` ((5 + |y|) / 6)^alpha as in that equation, `power` |y|^alpha."""
    max_extra_length: int = Field(default=50, ge=0, le=10_000)
    """Pieces by which an output may be longer than its source."""
    max_source_length: int = Field(default=1024, ge=1, le=2**14)
    """Pieces of a source; longer ones are cut, with a warning."""
    batch_tokens: int = Field(default=8000, ge=1, le=1_000_000)
    """Padded source tokens times beam size, per batch."""
    alignment_layer: int | None = Field(default=None, ge=0)
    """The decoder layer whose cross-attention gives word alignments, from 0, where `seq2seq explain` counts from 1; by
    default the one before the last (Garg et al. 2019, arXiv 1909.02074)."""
    alignment_head: int = Field(default=-1, ge=-1)
    """One of its heads, from 0 as well, or (-1) the mean of them all."""


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
