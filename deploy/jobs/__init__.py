"""What automated jobs hand to each other, and tell."""
