"""Books: a file of any common format read into chapters, spoken piece by piece, and bound as an audiobook."""
