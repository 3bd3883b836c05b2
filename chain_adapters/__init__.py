"""The ledgers behind the `Ledger` protocol: the embedded Merkle log; Ethereum and CometBFT come later."""
