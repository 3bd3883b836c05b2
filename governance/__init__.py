"""Signed events, the pure reducer that judges them, the `Ledger` protocol and its proofs, evidence packs.

No I/O but in `payloads`, `evidence` and `exports`, which read and write files that they are given.
"""
