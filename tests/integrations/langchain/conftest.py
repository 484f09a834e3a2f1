"""Fixtures for the adapter's tests."""
