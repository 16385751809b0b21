"""Samplers of candidates: Optuna's, and a surrogate model of closed-form features."""
