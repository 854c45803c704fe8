"""Training: pure learners and steps, and the loop, devices and files around them."""
