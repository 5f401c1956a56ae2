"""Builders of test data: each makes a valid thing, and keywords make it another."""
