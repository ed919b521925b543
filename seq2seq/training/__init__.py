"""Training (section 5): loss, optimizer and schedule, the loop, checkpoint averaging."""
