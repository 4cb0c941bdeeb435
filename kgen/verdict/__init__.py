"""The judgement: pure functions from a request and an observation to a verdict with its reason."""
