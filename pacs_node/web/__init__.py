"""What the web port serves."""
