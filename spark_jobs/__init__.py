"""What runs beside the warehouse: the Spark session, the quality gate, prepared rows, statistics,
training and evaluation on partitions, and the child process that user code runs in.

The only package that imports torch, apart from the public API; with `connectors` the only one that
imports pyspark.
"""
