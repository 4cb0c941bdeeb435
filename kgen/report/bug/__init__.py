"""A bug report, ready to be pasted into a bug tracker."""
