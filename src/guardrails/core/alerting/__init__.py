"""What people are told: as closed records, until somebody has them. Pure."""
