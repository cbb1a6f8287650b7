"""The contract of a family, and the engine that speaks requests with a model that keeps it."""
