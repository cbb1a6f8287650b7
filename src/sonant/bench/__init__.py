"""Speed, measured: one model in a fresh process, alone or in turn with a rival in the same minutes."""
