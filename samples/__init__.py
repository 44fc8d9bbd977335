"""Small runnable programs, and one small trained model with real images to try things on."""
