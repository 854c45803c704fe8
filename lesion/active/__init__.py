"""Pure parts of active labelling and their driver."""
