"""Every order in which CPUs can access a cell: the model, the machine that is stepped through each order, the
report."""
