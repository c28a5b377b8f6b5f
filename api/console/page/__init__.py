"""The frame of every console page and the parts that pages share."""
