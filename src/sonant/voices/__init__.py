"""Whose voice: encoded references, the library of stored ones, and which of them a request means."""
