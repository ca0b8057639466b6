"""Models that are somebody else's HTTP servers: any that speaks OpenAI's API, and Yuan-2.0's own."""
