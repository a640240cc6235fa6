"""A training of one's own: from a folder of labelled pictures to lists, mean, nets and solver."""
