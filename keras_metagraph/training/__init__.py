"""What trains a loaded model."""
