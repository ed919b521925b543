"""How good and how fast: sacreBLEU's scores with their signatures, significance, overlap with the training data."""
