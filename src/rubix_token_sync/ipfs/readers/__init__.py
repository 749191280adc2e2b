"""Ways of getting content, one module each."""
