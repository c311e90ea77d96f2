"""From verdicts to what a person reads: tables, figures, findings, and the marked parts of README and pages."""
