"""Trained models for other programs, CTranslate2 and Hugging Face transformers, certified to do what ours does."""
