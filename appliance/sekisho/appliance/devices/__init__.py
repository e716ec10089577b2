"""What a LAN device tells of itself: names and clues from its announcements, its vendor, a guess of its kind."""
