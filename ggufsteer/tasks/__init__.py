"""What a person asks for: plan a contrast, extract a vector, make one of a phrase, answer with it. Nothing prints."""
