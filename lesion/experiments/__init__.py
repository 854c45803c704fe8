"""Many runs: a plan with its report, or the settings of a sweep."""
