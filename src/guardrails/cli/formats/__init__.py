"""What commands write for programs. Money is a decimal string."""
