"""Spend: reads from a history what people ask about, and what they should know."""
