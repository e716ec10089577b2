"""People are told: which notice becomes which mail, when, in which words, and whether it arrived."""
