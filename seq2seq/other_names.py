"""What other toolkits (fairseq, OpenNMT-py, Marian, Joey NMT, Hugging Face) call things: messages name ours."""

from __future__ import annotations

import re

RATE = (
    "the rate's peak is training.learning_rate_scale * (model.d_model * training.warmup_steps)^-0.5: set the scale "
    "that gives yours"
)
SENTENCES = "batches are counted in padded target tokens, training.batch_tokens, and not in sentences"
MOVING = "there is no moving average; training.average and training.average_checkpoints average checkpoints"
ONE_DEVICE = "a training has one device, training.device"
OPTIMIZER = "a training that begins with training.init_from has a new optimizer and schedule"
LAYERS = "model.num_encoder_layers and model.num_decoder_layers"
SAMPLING = "tokenizer.sample_source and tokenizer.sample_target"

SETTINGS = {
    name: ours
    for ours, names in {
        "model.d_model": "hidden_size dim_emb embed_dim embedding_dim encoder_embed_dim decoder_embed_dim emb_size "
        "rnn_size word_vec_size dim_model model_dim",
        "model.d_ff": "ff_size dim_ff ffn_dim transformer_ff transformer_dim_ffn encoder_ffn_dim encoder_ffn_embed_dim "
        "decoder_ffn_embed_dim intermediate_size feed_forward_size",
        "model.num_heads": "heads n_heads nhead transformer_heads num_attention_heads encoder_attention_heads "
        "decoder_attention_heads",
        "model.num_encoder_layers": "enc_layers encoder_layers enc_depth",
        "model.num_decoder_layers": "dec_layers decoder_layers dec_depth",
        LAYERS: "layers num_layers n_layers num_hidden_layers",
        "model.norm": "norm_first layer_norm pre_norm prenorm encoder_normalize_before decoder_normalize_before "
        "transformer_preprocess transformer_postprocess",
        "model.activation": "activation_fn activation_function transformer_ffn_activation pos_ffn_activation_fn",
        "model.positions": "position_encoding pos_encoding learned_positions encoder_learned_pos",
        "model.tied_embeddings": "tied_softmax tied_embeddings_all tied_embeddings_src share_embeddings "
        "share_all_embeddings share_decoder_embeddings share_decoder_input_output_embed",
        "tokenizer.algorithm": "type model_type spm_type subword_type",
        "tokenizer.vocab_size": "src_vocab_size tgt_vocab_size dim_vocabs bpe_size nwordssrc nwordstgt num_merges",
        "tokenizer.shared": "joint joined_dictionary share_vocab joint_vocab shared_vocab",
        "tokenizer.source_model": "vocabs vocab src_vocab srcdict src_subword_model sentencepiece_model spm_model",
        SAMPLING: "bpe_dropout sentencepiece_alphas src_subword_alpha subword_alpha",
        "data.max_source_length and data.max_target_length": "max_length src_seq_length tgt_seq_length max_sent_length "
        "max_sentence_length",
        "data.train_source and data.train_target": "train_sets trainpref path_src path_tgt",
        "data.valid_source and data.valid_target": "valid_sets validpref dev",
        "training.batch_tokens": "max_tokens mini_batch_words tokens_per_batch",
        SENTENCES: "batch_size mini_batch train_batch_size",
        "training.accumulate": "update_freq accum_count optimizer_delay batch_multiplier gradient_accumulation_steps "
        "accumulation_steps",
        "training.max_steps": "max_update max_updates train_steps after_batches num_train_steps updates steps",
        "training.max_epochs": "max_epoch after_epochs epochs num_epochs num_train_epochs",
        "training.patience": "early_stopping early_stopping_patience",
        "training.validate_every": "valid_freq validation_freq validate_interval validate_interval_updates valid_steps "
        "eval_steps",
        "training.save_every": "save_freq save_interval save_interval_updates save_checkpoint_steps save_steps",
        "training.log_every": "disp_freq log_interval report_every logging_freq logging_steps",
        "training.keep_last": "keep_checkpoint keep_checkpoints keep_last_epochs keep_interval_updates "
        "save_total_limit",
        "training.keep_best": "keep_best_ckpts keep_best_checkpoints",
        "training.average_checkpoints": "avg average_last num_checkpoints",
        MOVING: "average_decay exponential_smoothing ema ema_decay",
        "training.warmup_steps": "warmup lr_warmup warmup_updates learning_rate_warmup",
        "training.schedule": "lr_scheduler lr_scheduler_type decay_method scheduling lr_decay_inv_sqrt",
        "training.clip_norm": "max_grad_norm clip_grad_norm",
        "training.precision": "fp16 bf16 amp model_dtype dtype mixed_precision",
        "training.device": "use_cuda gpu cuda",
        ONE_DEVICE: "gpus num_gpus devices gpu_ranks world_size",
        "training.num_threads": "cpu_threads threads",
        "training.init_from": "train_from pretrained_model finetune_from_model load_model restore_file",
        OPTIMIZER: "reset_optimizer reset_lr_scheduler no_restore_training",
        "decoding.beam_size": "beam num_beams",
        "decoding.length_penalty": "lenpen alpha beam_alpha normalize lp",
        "decoding.max_extra_length": "max_len_b max_length_factor max_output_length",
        RATE: "learning_rate lr peak_learning_rate max_lr",
    }.items()
    for name in names.split()
}

# By command.
OPTIONS = {
    "translate": {
        "--output": "write > FILE", "-o": "write > FILE", "--out": "write > FILE",
        "--src": "name the file without an option", "--input": "name the file without an option",
        "-i": "name the file without an option", "--source": "name the file without an option",
        "--nbest": "--n-best", "--num-hypotheses": "--n-best", "--beam": "--beam-size", "-b": "--beam-size",
        "--num-beams": "--beam-size", "--lenpen": "--length-penalty", "--alpha": "--length-penalty",
        "--normalize": "--length-penalty", "--max-len-b": "--max-length", "--min-len": "--min-length",
        "--max-output-length": "--max-length", "--block-ngram-repeat": "--no-repeat-ngram",
        "--no-repeat-ngram-size": "--no-repeat-ngram", "--random-sampling-topk": "--sample --top-k",
        "--sampling-topk": "--sample --top-k", "--sampling": "--sample", "--output-sampling": "--sample",
        "--random-sampling-topp": "--sample --top-p", "--random-sampling-temp": "--sample --temperature",
        "--force-decoding": "--prefix or --prefix-file", "--tgt-file-prefix": "--prefix-file",
        "--prefix-size": "--prefix-file", "--constraints": "--require-file", "--phrase-table": "--require-file",
        "--alignment": "--alignments", "--report-align": "--alignments", "--print-alignment": "--alignments",
        "--fp16": "--precision bf16", "--dtype": "--precision", "--cpu-threads": "--threads",
        "--model": "name the run's folder without an option", "--path": "name the run's folder without an option",
        "--remove-bpe": "translations are text already", "--post-process": "translations are text already",
        "--score": "seq2seq score, of translations that there are; --format jsonl has the score of each translation",
        "--with-score": "--format jsonl",
        "--resume": "--skip-lines", "--start": "--skip-lines", "--offset": "--skip-lines",
        "--run-dir": "name the run's folder without an option",
        "--batch-size": "decoding.batch_tokens in the run's config.toml says how much is translated at once",
        "--max-tokens": "decoding.batch_tokens in the run's config.toml says how much is translated at once",
        "--mini-batch": "decoding.batch_tokens in the run's config.toml says how much is translated at once",
        "--device": "CUDA_VISIBLE_DEVICES= in the environment, to translate without the GPU",
        "--gpu": "a GPU is used where torch finds one",
        "--checkpoint": "a run's average, or its best checkpoint, is what translates (training.average)",
    },
    "train": {
        "--arch": "--preset", "--config": "name the file without an option", "-c": "name the file without an option",
        "--trainpref": "--source and --target", "--train-sets": "--source and --target", "--data": "a recipe",
        "--train-source": "--source", "--train-target": "--target", "--src": "--source", "--tgt": "--target",
        "--model": "--run-dir", "--save-dir": "--run-dir",
        "--save-model": "--run-dir", "--output": "--run-dir", "--finetune-from-model": "--init-from",
        "--train-from": "--init-from, or --resume",
    },
}  # fmt: skip

COMMANDS = {
    "generate": "translate", "interactive": "translate", "decode": "translate", "decoder": "translate",
    "predict": "translate", "evaluate": "benchmark", "eval": "benchmark", "test": "benchmark", "bleu": "benchmark",
    "preprocess": "train, which prepares the text itself", "prepare": "train, which prepares the text itself",
    "build_vocab": "train, which learns the vocabulary itself", "vocab": "train, which learns the vocabulary itself",
    "average": "train --resume with training.average_checkpoints (docs/RESUMING.md)",
    "average_checkpoints": "train --resume with training.average_checkpoints (docs/RESUMING.md)",
    "finetune": "train --init-from", "fine-tune": "train --init-from", "resume": "train --resume",
    "rescore": "score", "scorer": "score", "plot": "explain --plot", "attention": "explain", "convert": "export",
    "release_model": "export", "back-translate": "diversify", "distill": "diversify",
}  # fmt: skip


def setting(name: str) -> str | None:
    """What a setting of another toolkit is here."""
    return SETTINGS.get(_plain(name))


def is_setting(ours: str) -> bool:
    """Whether it is settings alone, "training.max_steps" or two with "and", and no sentence."""
    return all(re.fullmatch(r"[a-z]+\.[a-z_]+", one) for one in ours.split(" and "))


def option(command: str, name: str) -> str | None:
    """What an option of another toolkit is here, as words for "instead: ..."."""
    known = OPTIONS.get(command, {})
    return known.get(name) or known.get("--" + _plain(name).replace("_", "-"))


def command(name: str) -> str | None:
    return COMMANDS.get(name.lower()) or COMMANDS.get(_plain(name))


def _plain(name: str) -> str:
    return re.sub(r"^-+", "", name).lower().replace("-", "_")
