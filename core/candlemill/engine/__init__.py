"""The compiled heart: columns in, exact integers out. No I/O, no clock; imports NumPy and librt only."""
