"""What is known of the products: ids to rows, attributes for the profile, and whether they can be sold now."""
