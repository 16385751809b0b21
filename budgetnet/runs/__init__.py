"""What a training run is and what it leaves: recipe, records, run folder, metrics. Never loads torch."""
