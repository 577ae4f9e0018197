"""How well words are read: protocols, metrics and the one evaluator."""
