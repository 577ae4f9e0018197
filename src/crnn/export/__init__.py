"""From trained weights to files that other runtimes read."""
