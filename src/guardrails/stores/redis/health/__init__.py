"""Health: what `guardrails doctor` asks the servers, and what their answers mean.

`node` asks. `judgement`, `losses` and `rights` judge what was answered, and `books`
finds what does not add up. `diagnosis` puts that together.
"""
