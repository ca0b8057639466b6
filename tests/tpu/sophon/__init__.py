"""Stands where the vendor's `sophon` would: the same calls, on the vendor's simulator; for tests only."""
