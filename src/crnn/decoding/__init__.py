"""Decoding with knowledge: a lexicon, a prior over words, allowed characters, beam search. NumPy alone."""
