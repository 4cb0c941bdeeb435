"""Runs of kgen verify: start a machine, follow it, freeze it, read it."""
