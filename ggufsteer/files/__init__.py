"""What is read and written: GGUF, vectors, recipes, pairs. Knows no model library."""
