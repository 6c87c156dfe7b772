"""What users write and read: the types of the API, its conditions and its presets."""
