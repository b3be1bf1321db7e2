"""What a student minimises: classification, and what the teacher knows."""
