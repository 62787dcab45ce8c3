"""Where the original keeps its cache."""
