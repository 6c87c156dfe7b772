"""How well rollouts are decided: this engine and the rules that people use, in the same worlds."""
