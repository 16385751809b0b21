"""Training of one network: step, validation, checkpoint, callbacks and trackers."""
