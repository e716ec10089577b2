"""The monitoring centre: takes every box's events from the broker, stores each exactly once, proves none is missing."""
