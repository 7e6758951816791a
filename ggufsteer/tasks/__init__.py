"""What a person asks for: plan a contrast, extract a vector, make one from a phrase, answer with it. Nothing here prints."""
