"""Adding updates up: fixed-point coding, and the aggregation that opens sums only.

Pure: no networking, no warehouse, no torch.
"""
