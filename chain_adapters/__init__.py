"""The ledgers behind the `Ledger` protocol: Merkle log, Ethereum, CometBFT. Nothing lives here yet;
the embedded Merkle log comes first.
"""
