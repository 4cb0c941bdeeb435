"""Observations without a judgement: records of both channels, the path, the hypervisor's trace."""
