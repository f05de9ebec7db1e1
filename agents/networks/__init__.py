"""Networks of agents: actors, critics and heads on sparse layers, and how their passes are traced."""
