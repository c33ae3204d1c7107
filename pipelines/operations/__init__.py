"""Running it: settings, sessions, the job frame, the embedded broker, the command line."""
