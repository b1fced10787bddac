//! The calls as clients make them: what is answered, and with which status.
