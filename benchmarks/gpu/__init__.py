"""What is measured of the transformers engine and of cards, and the recording of a card that tests replay."""
