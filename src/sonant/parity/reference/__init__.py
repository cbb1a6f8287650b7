"""Recorders that run beside an original, in the original's own environment; Sonant imports only `tracefile`.

Copy `tracefile.py` and the recorder of one family to any machine, or run the recorder in place by its path.
"""
