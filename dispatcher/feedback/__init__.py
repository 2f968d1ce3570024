"""Feedback: what providers and mail servers report after they took a message.

* `signatures`     is it really from them?  Over the raw bytes, before anything is read
* `inbox`          the raw batch is stored, then answered, then sorted page by page
* `sendgrid`, `twilio`, `bounce_mail`, `notices`   their words into ours: `report.Report`
* `codes`          what a status code says of the address
* `recording`      reports into the ledger: one row an event, legal moves only, suppressions in the same transaction

Duplicates, disorder and replays are harmless: an event is one row, and a message only moves up (`report.Standing`).
"""
