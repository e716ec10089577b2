"""What the centre says of rules between two sets: which are switched off for all boxes, and what is usual."""
