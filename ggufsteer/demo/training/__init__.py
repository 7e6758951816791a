"""How the model that ships was made: its corpus, its network, its training. Needs the `train` extra."""
