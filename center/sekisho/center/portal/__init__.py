"""The portal: what customers, chambers, help desk and operators see and do in a browser."""
