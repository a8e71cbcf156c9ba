"""What peers may ask of this host."""
