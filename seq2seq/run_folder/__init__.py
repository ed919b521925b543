"""What a run folder is made of: files, checkpoints, weights, what a run may change. `seq2seq.run` is the folder."""
