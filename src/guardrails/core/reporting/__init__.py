"""What reports add up: sums by the hour, and events as flat rows. Pure."""
