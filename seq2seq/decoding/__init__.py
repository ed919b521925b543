"""From a trained model to translations: greedy and beam search, sampling, scoring; tensors inside, text at the edge."""
