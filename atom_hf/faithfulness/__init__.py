"""How faithful token importance is to the model, beside other attributions."""
