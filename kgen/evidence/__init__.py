"""What was seen, without an opinion: records of both channels, the path, the hypervisor's trace."""
