"""What readings mean: clock maps, sensor models and gains, as certificates computed from recorded runs."""
