"""Where a network looks: Grad-CAM maps, which slices are shown, and the sheet they are shown on."""
