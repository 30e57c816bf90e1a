"""Reports: one self-contained HTML file, and tables for the terminal."""
