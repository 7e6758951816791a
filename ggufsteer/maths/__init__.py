"""Numbers only: directions and statistics on arrays. Knows no file, no model and no terminal."""
