"""What a run of training leaves in its folder."""
