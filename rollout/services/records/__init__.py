"""Records in: permissions, storage, review tasks, authorization of actions."""
