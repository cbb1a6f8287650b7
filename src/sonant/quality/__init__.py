"""Speech judged: word errors, sound, likeness; sweeps of settings, comparisons, public test sets."""
