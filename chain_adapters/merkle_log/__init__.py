"""The embedded ledger: an RFC 6962 tree in SQLite, cosigned by witnesses."""
