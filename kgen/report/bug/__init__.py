"""A bug report ready to be pasted into a tracker."""
