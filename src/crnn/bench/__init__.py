"""How fast this machine reads: each engine, precision, number of threads and batch size, measured in turn."""
