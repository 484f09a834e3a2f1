"""What commands show to people, at the width of their terminal."""
