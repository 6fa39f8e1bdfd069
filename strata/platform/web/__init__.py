"""What every page of ours is made of: templates, assets with names that never change their content, a look, a policy."""
