"""Which models there are: families, releases on the hubs, and what a folder holds."""
