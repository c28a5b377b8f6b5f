"""rollout: widen a model's scope site by site and hour by hour, on evidence that people approve."""
