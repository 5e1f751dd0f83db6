"""The only code that sends anything to a provider."""
