"""Prices: what model calls cost, and what they can cost at most."""

from guardrails.prices.book import Prices
from guardrails.prices.rows import ModelPrice

__all__ = ["ModelPrice", "Prices"]
