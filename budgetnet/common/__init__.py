"""Shared by all rooms: errors, documents, files, formatting, seeds and the CPU. Imports no other room."""
