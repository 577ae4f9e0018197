"""Labelled words on disk: reading, writing, checking."""
