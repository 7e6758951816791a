"""The model: the only floor that imports llama_cpp."""
