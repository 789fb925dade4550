"""An executable model of the job state machine, explored exhaustively, and the oracle of the stateful tests."""
