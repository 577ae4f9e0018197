"""Reading millions of words: a job over files in any storage, which can be killed and gone on with, here or on Ray."""

from __future__ import annotations
