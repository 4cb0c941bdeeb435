"""Look at a running machine that the user started."""
