"""What several tests need: recordings, fake upstreams, a running gateway."""
