"""Measurement of the device that networks are deployed on: a table of operation times, and its validation."""
