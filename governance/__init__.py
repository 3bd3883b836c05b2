"""Signed events, the pure reducer that judges them, and the `Ledger` protocol. Nothing lives here
yet; the ledger's first events arrive with the reducer that judges them.
"""
