"""A text read to a file: the job, its delivery, what is kept of it, and how it went."""
