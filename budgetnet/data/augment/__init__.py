"""Augmentation of batches on the device."""
