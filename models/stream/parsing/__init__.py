"""What one cell, one column and one text record mean."""
