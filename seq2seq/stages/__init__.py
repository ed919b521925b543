"""What a training does before its first step and after its last. `seq2seq.pipeline` is the way through them."""
