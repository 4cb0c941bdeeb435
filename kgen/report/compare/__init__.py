"""Two results, compared case by case."""
