"""The feed (functions/feed) beside a simulated exchange that sends as much as a large one."""
