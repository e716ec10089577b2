"""What a customer decides about a box: kept here, signed and sent to it, and what the box has said it did."""
