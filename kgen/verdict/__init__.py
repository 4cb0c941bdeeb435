"""The judgement: pure functions from a request and what was seen to a verdict with its reason."""
