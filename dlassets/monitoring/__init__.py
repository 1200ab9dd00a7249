"""What the lake says about itself."""
