"""What is asked: a case, a kernel's specification, suites, defaults, and the checks of arguments."""
