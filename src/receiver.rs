//! The public endpoint: verifies, makes durable, answers.
