"""Networks of others that re-ID weights come in: only what torchvision and timm do not have."""
