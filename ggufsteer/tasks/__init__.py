"""What a person asks for, one module a verb: knows recipes and models, knows nothing of terminals."""
