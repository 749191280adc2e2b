"""What every SQL target shares: tables, transactions, leases, publishing, questions."""
