"""What `seq2seq COMMAND` does: arguments and options, what is wrong with them, the call, what is printed.

Heavy modules are imported inside of the functions, so that `--help` answers at once.
"""
