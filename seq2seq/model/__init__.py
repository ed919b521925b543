"""The network of "Attention Is All You Need", as in its Figure 1: positions, attention, layers, encoder-decoder."""
