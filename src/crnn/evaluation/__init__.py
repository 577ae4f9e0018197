"""How well words are read: metrics and the one evaluator."""
