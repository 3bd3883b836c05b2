"""fedhouse: federated learning that runs inside each enterprise's data warehouse.

The public names load on first use, so that `import fedhouse` needs neither Spark nor torch.
"""
