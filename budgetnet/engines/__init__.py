"""Engines: where and how several runs are executed."""
