"""Formats that other people's meters and programs write: what drivers and imports both parse."""
