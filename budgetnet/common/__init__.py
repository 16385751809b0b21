"""Utilities used by every package: errors, documents, files, formatting, seeding and CPU settings."""
