"""Speed and memory, as ratios against plain implementations in the same run."""
