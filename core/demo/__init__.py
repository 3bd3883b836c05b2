"""The demo: each airline's own warehouse, one job across them, and the pictures of what came out."""
