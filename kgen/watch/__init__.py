"""Looking at a running machine that the user started."""
