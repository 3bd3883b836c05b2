"""One module per kind of warehouse, one contract that they all keep, and the profiles that name them.

A connector turns a `SourceRef` into a Spark DataFrame and a `Pin`: proof of which bytes were read.
"""
