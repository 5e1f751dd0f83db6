"""`python -m llm_gate` is the llm-gate command."""

from llm_gate.cli import main

if __name__ == "__main__":
    main()
