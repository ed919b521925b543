"""Text in, integer batches out: sentence pairs on disk, SentencePiece, token-budgeted batches."""
