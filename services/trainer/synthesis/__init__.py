"""Synthetic defects: seeded, in milliseconds, for choosing families and for training one (arrow 6).

In: a good photo, another good photo, a random generator. Out: the photo spoilt, and a mask of what
really differs. Guarantee: equal arguments give equal results; a mask is never empty. A file for each
kind; `spoil` draws one. Knows nothing of detectors, and says nothing of real defects: a family that
finds these need not find those.
"""
