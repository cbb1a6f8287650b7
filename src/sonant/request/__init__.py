"""What is asked for: requests as plain data, and the checks before any work."""
