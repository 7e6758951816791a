"""Everything that is read from or written to disk: GGUF, vectors, recipes, contrast pairs.

Knows formats and their limits. Does not know llama.cpp, the terminal, or how a vector is computed.
"""
