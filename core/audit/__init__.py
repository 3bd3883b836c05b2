"""What an auditor reads: findings drawn from a replayed ledger, and a page that shows them."""
