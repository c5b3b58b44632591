"""Samplers that learn a policy: reinforcement learning, layer by layer."""
