"""Observations without judgement: the records of both channels, what backs the cells, the hypervisor's trace."""
