"""The scheduled jobs, one module a job."""
