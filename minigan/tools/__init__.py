"""What every command needs: files written whole, flags and errors, pictures."""
