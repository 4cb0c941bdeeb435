"""Every order of two accesses' steps: the model, the machine that is stepped through them, the report."""
