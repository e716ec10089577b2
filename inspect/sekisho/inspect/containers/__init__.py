"""Opens what files carry inside: archives, documents, disc images, mails.

`walk.members` yields everything a reader could take out of a file, at every level, within a `Budget`. Each format
has an opener: `(data, budget) -> (name, content) ...`. Openers never raise on content: what they could not open they
`note` in the budget, and the end of the budget is the one exception (`Spent`). Formats are read by libraries; where
two programs could read one container differently, it is read both ways. Runs in scan workers only.
"""
