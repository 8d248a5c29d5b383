"""The learner: offline reinforcement learning on token sequences. ILQL is its first method."""
