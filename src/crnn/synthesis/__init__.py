"""Labelled words drawn from fonts: text, layout, appearance, degradation. Belongs to the training ring."""
