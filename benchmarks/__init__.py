"""What a guarded call costs, as ratios against a baseline of the same run."""
