"""Commands from settings to the files that they leave."""
