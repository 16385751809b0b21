"""Training runs as data: recipe, records, run folder and metrics; does not import torch."""
